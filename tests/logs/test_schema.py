"""schema.json: what it says is read, what is wrong is named."""

import copy
import json

import pytest
from logs_fixture import SCHEMA

from prerank.core.errors import InputError
from prerank.logs.schema import load_schema, parse_schema


def test_round_trip(tmp_path):
    schema = parse_schema(SCHEMA, "here")
    schema.save(tmp_path)
    assert load_schema(tmp_path) == schema
    assert schema.student_features == tuple(SCHEMA["hand_picked"])
    assert schema.by_name["brand"].width == 3 and schema.by_name["quality"].width == 2


def test_without_hand_picked_students_get_all_but_the_teachers_own():
    raw = {key: value for key, value in SCHEMA.items() if key != "hand_picked"}
    assert parse_schema(raw, "here").student_features == tuple(
        f["name"] for f in SCHEMA["features"] if not f.get("teacher_only")
    )


def test_select_keeps_the_order_of_the_schema():
    schema = parse_schema(SCHEMA, "here")
    assert [f.name for f in schema.select(("match", "price"), where="x")] == ["price", "match"]
    with pytest.raises(InputError, match="--features: unknown feature 'prize'; did you mean 'price'"):
        schema.select(("prize",), where="--features")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: s["features"][0].update(kin="dense"), "'user_age': unknown key 'kin'; did you mean 'kind'"),
        (lambda s: s.update(extra=1), "unknown key 'extra'"),
        (lambda s: s["features"][0].pop("source"), "'user_age': 'source' is missing"),
        (lambda s: s["features"][0].update(source="F9"), "source must be one of F1, F2"),
        (lambda s: s["features"][0].update(side="users"), "side must be one of"),
        (lambda s: s["features"][0].update(fetch_us=-1), "fetch_us must be microseconds"),
        (lambda s: s["features"][0].update(fetch_us=float("nan")), "fetch_us must be microseconds"),
        (lambda s: s["features"][0].update(size=0), "size must be a whole number >= 1"),
        (lambda s: s["features"][0].update(dim=4), "'dim' is for ids"),
        (lambda s: s["features"][3].pop("dim"), "needs 'size' .* and 'dim'"),
        (lambda s: s["features"][0].update(name="clicked"), "rename the feature"),
        (lambda s: s["features"].append(s["features"][0]), "'user_age' is declared 2 times"),
        (lambda s: s.update(hand_picked=["prise"]), "hand_picked: unknown feature 'prise'"),
        (lambda s: s["fetch"].update(F1={"per_feature": 1}), "fetch source 'F1'"),
        (lambda s: s.update(features=s["features"][:2]), "no feature of the side item or cross"),
    ],
)
def test_what_is_wrong_is_named(change, complaint):
    raw = copy.deepcopy(SCHEMA)
    change(raw)
    with pytest.raises(InputError, match=complaint):
        parse_schema(raw, "schema.json")


def test_missing_or_broken_file(tmp_path):
    with pytest.raises(InputError, match=r"schema.json: missing"):
        load_schema(tmp_path)
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA)[:50])
    with pytest.raises(InputError, match="not JSON"):
        load_schema(tmp_path)
