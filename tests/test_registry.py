"""Networks from outside the package: how they are found, and one clear sentence where they cannot be used."""

from __future__ import annotations

import sys

import pytest
from torch import nn

from mga_kernels.errors import InputError
from mga_kernels.networks import ModelConfig, Network, get_network, network_names, register_network, registry
from mga_kernels.networks.divided import Layout

FILE = """
from mga_kernels.networks import Network, register_network
from mga_kernels.architectures.fsrcnn.network import BaseNet as Base, RefineNet as Refine

class BaseNet(Base): pass
class RefineNet(Refine): pass

register_network(Network({name!r}, BaseNet, RefineNet, feature_channels=12, split=(3, 1)))
"""


class Half(nn.Module):
    pass


class OtherHalf(nn.Module):
    pass


@pytest.fixture(autouse=True)
def _fresh_registry(monkeypatch):
    """No network but those of the package, during the test."""
    monkeypatch.setattr(registry, "_networks", {})
    monkeypatch.setattr(registry, "_imported", set())
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.delenv("MGA_NETWORKS", raising=False)


@pytest.fixture
def name_in_mga_networks(tmp_path, monkeypatch):
    """Write files (name without .py -> text) and name them in MGA_NETWORKS."""

    def write(**files: str) -> None:
        paths = []
        for stem, text in files.items():
            path = tmp_path / stem / "net.py"  # all of one name
            path.parent.mkdir()
            path.write_text(text)
            paths.append(str(path))
        monkeypatch.setenv("MGA_NETWORKS", ", ".join(paths))

    return write


def refusal(name: str = "mine") -> str:
    with pytest.raises(InputError, match=r"^network: ") as first:
        get_network(name)
    with pytest.raises(InputError) as second:
        get_network(name)
    assert str(first.value) == str(second.value), "asked again, it must not pretend that all is well"
    assert "\n" not in str(first.value)
    return str(first.value)


def test_files_of_one_name_are_two_networks(name_in_mga_networks):
    ours = network_names()
    name_in_mga_networks(a=FILE.format(name="first"), b=FILE.format(name="second"))
    assert network_names() == (*ours, "first", "second")
    assert get_network("first").name == "first"
    assert get_network("first").base is not get_network("second").base


def test_a_file_is_imported_once_and_only_when_needed(name_in_mga_networks, tmp_path):
    log = tmp_path / "log"
    name_in_mga_networks(a=f"open({str(log)!r}, 'a').write('x')\n" + FILE.format(name="mine"))
    get_network("fsrcnn")
    assert not log.exists(), "a network of the package needs no file"
    for _ in range(3):
        network_names()
        get_network("mine")
    assert log.read_text() == "x"


def test_a_module_can_be_named(tmp_path, monkeypatch):
    (tmp_path / "my_networks_for_test.py").write_text(FILE.format(name="mine"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MGA_NETWORKS", "my_networks_for_test")
    assert get_network("mine").base.__module__ == "my_networks_for_test"
    monkeypatch.setattr(registry, "_imported", set())
    assert "mine" in network_names(), "what the user's program imported before counts"


def test_a_network_registered_again_from_its_file_replaces_itself():
    """As a notebook's cell does that is executed again."""
    first = register_network(Network("mine", Half, Half, feature_channels=1, split=(1, 1)))
    second = register_network(Network("mine", Half, Half, feature_channels=2, split=(1, 1)))
    assert get_network("mine") is second is not first


@pytest.mark.parametrize("network", ["rfdn", "fsrcnn", "imdn"])
def test_names_of_the_package_are_taken(network):
    with pytest.raises(InputError, match=f"'{network}' is the name of a network of the package; choose another name"):
        register_network(Network(network, Half, Half, feature_channels=1, split=(1, 1)))
    assert get_network(network).base is not Half


def test_a_name_clash_says_who_has_the_name(name_in_mga_networks):
    register_network(Network("mine", Half, Half, feature_channels=1, split=(1, 1)))
    with pytest.raises(InputError, match=r"'mine' is taken by the network of .*test_registry\.py; choose another name"):
        register_network(Network("mine", OtherHalf, Half, feature_channels=1, split=(1, 1)))
    name_in_mga_networks(a=FILE.format(name="mine"))
    assert "test_registry.py; choose another name" in refusal("other")
    assert get_network("mine").base is Half


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def", "invalid syntax"),
        ("import no_such_module_for_test", "No module named"),
        ("undefined", "name 'undefined' is not defined"),
        ("raise RuntimeError('one\\ntwo')", "one"),
        ("raise KeyError", "KeyError"),
        (FILE.format(name="rfdn"), "'rfdn' is the name of a network of the package"),
    ],
)
def test_a_file_that_cannot_be_imported(name_in_mga_networks, text, reason):
    name_in_mga_networks(a=text)
    message = refusal()
    assert "a/net.py, which cannot be imported: " in message
    assert reason in message


@pytest.mark.parametrize("entry", ["/no/such/file.py", "no_such_module_for_test"])
def test_an_entry_that_does_not_exist(monkeypatch, entry):
    monkeypatch.setenv("MGA_NETWORKS", entry)
    assert f"MGA_NETWORKS names {entry}, which cannot be imported: " in refusal()


def test_a_file_that_registers_nothing(name_in_mga_networks):
    name_in_mga_networks(a="value = 1")
    message = refusal()
    assert "a/net.py, which registers no network; it must call mga_kernels.networks.register_network" in message


def test_an_unknown_network_is_told_the_remedy(name_in_mga_networks):
    ours = network_names()
    assert {"fsrcnn", "rfdn", "imdn"} <= {*ours}
    name_in_mga_networks(a=FILE.format(name="mine"))
    assert f"choose one of {', '.join(ours)}, mine, or name the file" in refusal("yours")
    assert "name the file that registers it in the environment variable MGA_NETWORKS" in refusal("yours")


def folder(path, name: str) -> None:
    """A network in a folder: its halves in a file of their own, and one field that is named by a string."""
    path.mkdir()
    (path / "halves.py").write_text("from mga_kernels.architectures.fsrcnn.network import BaseNet, RefineNet\n")
    (path / "__init__.py").write_text(
        "from mga_kernels.networks import Network, register_network\nfrom . import halves\n"
        "fields = {'feature_channels': 12, 'split': (3, 1), 'cpu': __name__ + '.cpu:Fast'}\n"
        f"register_network(Network({name!r}, halves.BaseNet, halves.RefineNet, **fields))\n"
    )
    (path / "cpu.py").write_text("from .halves import BaseNet\nclass Fast: half = BaseNet\n")


def test_a_folder_is_a_package(tmp_path, monkeypatch):
    """Its files import each other; it need not lie where Python looks; two folders of one name are two networks."""
    for parent, name in (("a", "first"), ("b", "second")):
        (tmp_path / parent).mkdir()
        folder(tmp_path / parent / "net", name)
    monkeypatch.setenv("MGA_NETWORKS", f"{tmp_path}/a/net,{tmp_path}/b/net/")
    first, second = get_network("first"), get_network("second")
    assert first.part("cpu").half is first.base
    assert first.part("cpu") is not second.part("cpu")
    monkeypatch.chdir(tmp_path / "a")
    monkeypatch.setenv("MGA_NETWORKS", "net")
    monkeypatch.setattr(registry, "_networks", {})
    monkeypatch.setattr(registry, "_imported", set())
    assert get_network("first").part("cpu").half is first.base


def test_a_folder_that_is_no_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MGA_NETWORKS", str(tmp_path))
    assert "which cannot be imported: " in refusal()


def test_a_folder_that_fails_is_imported_anew_once_it_is_mended(tmp_path, monkeypatch):
    folder(tmp_path / "net", "mine")
    good = (tmp_path / "net/halves.py").read_text()
    (tmp_path / "net/halves.py").write_text("BaseNet = RefineNet = undefined\n")
    monkeypatch.setenv("MGA_NETWORKS", str(tmp_path / "net"))
    assert "name 'undefined' is not defined" in refusal()
    (tmp_path / "net/halves.py").write_text(good)
    assert get_network("mine").base.__name__ == "BaseNet"


@pytest.mark.parametrize("reference", ["no_such_module_for_test:X", "mga_kernels.errors:NoSuchName", "mga_kernels"])
def test_a_field_that_names_nothing(reference):
    network = register_network(Network("mine", Half, Half, 1, (1, 1), cpu=reference))
    with pytest.raises(
        InputError, match=r"^network: cpu of 'mine' is '.*', which cannot be imported: .*; give \"module"
    ):
        network.part("cpu")


def test_a_network_cut_in_two_is_found_by_its_name():
    layout = Layout("conv_first", r"body\.", "conv_last")
    cut = Network("mine-split", Half, Half, 1, (1, 1), layout=layout)
    register_network(Network("mine", Half, divided=cut))
    assert get_network("mine-split") is cut
    assert network_names() == tuple(name for name in network_names() if name != "mine"), "it exists whole only"
    for other in (Network("other", Half, Half, layout=layout), Network("mine-split", Half, Half)):
        register_network(Network("mine", Half, divided=other))
        with pytest.raises(InputError, match="it must be called 'mine-split', and have a layout"):
            get_network("mine-split")


def test_what_exists_whole_has_no_mask_guided_configuration():
    with pytest.raises(InputError, match=r"msrresnet exists whole only; choose one of fsrcnn, .* or msrresnet-split"):
        ModelConfig("msrresnet", 4)
    register_network(Network("mine", Half))
    with pytest.raises(InputError, match="mine exists whole only; choose one of fsrcnn, "):
        ModelConfig("mine", 4)
