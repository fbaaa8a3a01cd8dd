"""``python -m mga``."""

import sys

from .cli import main

sys.exit(main())
