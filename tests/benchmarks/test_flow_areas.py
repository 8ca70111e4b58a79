"""Which commuting areas are held out."""

from __future__ import annotations

from flow_towns import task

from benchmarks.flows.areas import TEST, VALIDATION, split
from hf_mobility.benchmark import Protocol
from hf_mobility.benchmark.flow_areas import part_of


def test_an_area_is_in_one_part_which_its_name_decides() -> None:
    areas = task((4,) * 60)
    parts = split(areas)
    names = [{area.name for area in part.areas} for part in (parts.training, parts.validation, parts.test)]
    assert sum(map(len, names)) == len(set().union(*names)) == 60
    assert {area.name for area in parts.fitting.areas} == names[0] | names[1]
    assert names[1] == {area.name for area in areas.areas if part_of(area.name) in VALIDATION}
    assert names[2] == {area.name for area in areas.areas if part_of(area.name) in TEST}
    assert [part_of(name) for name in ("06073", "36061", "48113")] == [3, 3, 8]


def test_the_protocol_tests_the_same_areas() -> None:
    known = Protocol.load("commuting-od")
    (held_out,), (fitted,) = (known.role(role) for role in ("test", "train"))
    assert held_out.options["parts"] == list(TEST) and fitted.options["parts"] == list(range(2, 10))
