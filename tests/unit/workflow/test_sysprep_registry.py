"""Which operations there are, and which are chosen."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from imgtools.api import Operation
from imgtools.errors import RefusedError, UsageError
from imgtools.workflow.sysprep.registry import GROUP, build, choose
from imgtools.workflow.sysprep.skeleton import write_skeleton

pytestmark = pytest.mark.unit


def make(name: str, *, default: bool = True, order: int = 0) -> Operation:
    return Operation(
        name=name, heading=name, plan=lambda _guest, _values: (), default=default, order=order
    )


KNOWN = (make("alpha"), make("beta", default=False), make("gamma"), make("delta"))


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["alpha", "gamma", "delta"]),
        (["beta"], ["beta"]),
        (["defaults,beta"], ["alpha", "beta", "gamma", "delta"]),
        (["-alpha"], ["gamma", "delta"]),
        (["defaults,-alpha,-delta"], ["gamma"]),
        (["all", "-gamma"], ["alpha", "beta", "delta"]),
        (["all,-defaults"], ["beta"]),
        ([" alpha , beta "], ["alpha", "beta"]),
    ],
)
def test_operations_are_chosen(words: list[str], names: list[str]) -> None:
    assert [one.name for one in choose(KNOWN, operations=words)] == names


def test_enable_chooses_only_these() -> None:
    assert [one.name for one in choose(KNOWN, enable="delta,beta")] == ["beta", "delta"]


@pytest.mark.parametrize(
    ("enable", "words", "said"),
    [
        ("alpah", [], "no such operation: alpah: did you mean alpha?"),
        (None, ["-nothing-like-it"], "no such operation: nothing-like-it"),
        (None, ["alpha,-alpha"], "no operation is selected"),
        ("alpha", ["beta"], "cannot be used together"),
        ("defaults", [], "no such operation: defaults"),
    ],
)
def test_a_bad_choice_is_an_error(enable: str | None, words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        choose(KNOWN, enable=enable, operations=words)


def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, text: str) -> EntryPoint:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
    return EntryPoint(name=module, group=GROUP, value=f"{module}:operation")


GOOD = """
from imgtools.api import Operation, Option
operation = Operation(name="{name}", heading="x", plan=lambda g, o: (), order={order},
                      options=(Option(name="{option}", help="y"),))
"""


def test_the_registry_is_ordered_and_survives_bad_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def good(module: str, name: str, order: int, option: str) -> EntryPoint:
        text = GOOD.format(name=name, order=order, option=option)
        return entry(tmp_path, monkeypatch, module, text)

    found = build(
        [
            good("op_one", "zebra", 0, "one"),
            good("op_two", "ant", 5, "two"),
            good("op_twice", "zebra", 0, "three"),
            good("op_option", "fresh", 0, "one"),
            good("op_name", "Bad Name", 0, "four"),
            entry(tmp_path, monkeypatch, "op_broken", "raise RuntimeError('no')\n"),
            entry(tmp_path, monkeypatch, "op_other", "operation = 3\n"),
            EntryPoint(name="op_absent", group=GROUP, value="op_absent_module:operation"),
        ]
    )
    assert [one.name for one in found.operations] == ["zebra", "ant"]
    why = {failure.entry: failure.why for failure in found.failures}
    assert why.keys() == {
        "op_twice", "op_option", "op_name", "op_broken", "op_other", "op_absent",
    }  # fmt: skip
    assert "clashes with zebra" in why["op_twice"]
    assert "clashes with zebra" in why["op_option"]
    assert why["op_broken"] == "RuntimeError: no"
    assert "int" in why["op_other"]
    assert why["op_absent"].startswith("ModuleNotFoundError")


def test_a_skeleton_is_an_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = write_skeleton("remove-my-agent", tmp_path / "dist")
    assert [path.name for path in made] == ["pyproject.toml", "imgtools_remove_my_agent.py"]
    monkeypatch.syspath_prepend(str(tmp_path / "dist"))
    found = build([EntryPoint(name="x", group=GROUP, value="imgtools_remove_my_agent:operation")])
    assert ([one.name for one in found.operations], found.failures) == (["remove-my-agent"], ())
    with pytest.raises(RefusedError, match="exists already"):
        write_skeleton("remove-my-agent", tmp_path / "dist")
    with pytest.raises(UsageError, match="lower-case words"):
        write_skeleton("No Name", tmp_path / "other")
