"""``python -m mga``."""

import sys

from .start import main

sys.exit(main())
