"""schema.json: what it says is read, what is wrong is named."""

import copy
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs_fixture import SCHEMA

from prerank.core.errors import InputError
from prerank.logs.schema import RESERVED, load_schema, parse_schema


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
        (lambda s: s["fetch"].update(F1={"per_feature_us": -1}), "fetch source 'F1' must be .*>= 0"),
        (lambda s: s["fetch"].update(F1={"per_feature_us": 10**400}), "fetch source 'F1' must be"),
        (lambda s: s["features"][0].update(fetch_us=10**400), "fetch_us must be microseconds"),
        (lambda s: s["features"][0].update(fetch_us=1e300), "fetch_us must be microseconds"),
        (lambda s: s["features"][0].update(missing=[10**400]), "numbers that float32 holds"),
        (lambda s: s["hand_picked"].append("price"), "hand_picked names 'price' 2 times"),
        (lambda s: s.update(features=s["features"][:2]), "no feature of the side item or cross"),
        (lambda s: s.update(hand_picked="price"), "'hand_picked' must be a list of names of features, got 'price'"),
        (lambda s: s.update(hand_picked=None), "'hand_picked' must be a list"),
        (
            lambda s: s["features"][3].update(size=2**32),
            r"'query_city': size must be at most 2\^31 - 2 .*\"hash\": true",
        ),
        (lambda s: s["features"][3].update(size=2**31 - 1), "size must be at most"),
        (lambda s: s["features"][3].update(hash=1), "hash must be true or false"),
        (lambda s: s["features"][0].update(hash=True), "'hash' is for ids"),
        (lambda s: s["features"][0].update(missing=-999), r"'user_age': missing must be a list of numbers .*got -999"),
        (lambda s: s["features"][0].update(missing=["-999"]), "missing must be a list of numbers"),
        (lambda s: s["features"][0].update(missing=[True]), "missing must be a list of numbers"),
        (lambda s: s["features"][0].update(missing=[float("nan")]), "numbers that float32 holds"),
        (lambda s: s["features"][0].update(missing=[1e39]), "numbers that float32 holds"),
        (lambda s: s["features"][3].update(missing=[0.0]), "missing must be a list of integers of 64 bits, or of"),
        (lambda s: s["features"][3].update(missing=[0, "N/A"]), "missing must be a list of integers of 64 bits, or of"),
        (lambda s: s["features"][3].update(missing=["N/A", 0]), "missing must be a list of integers of 64 bits, or of"),
        (lambda s: s["features"][3].update(missing=["0"], hash=True), "must be a list of integers of 64 bits, such"),
        (lambda s: s["features"][3].update(missing=[2**64]), "missing must be a list of integers of 64 bits"),
    ],
)
def test_what_is_wrong_is_named(change, complaint):
    raw = copy.deepcopy(SCHEMA)
    change(raw)
    with pytest.raises(InputError, match=complaint):
        parse_schema(raw, "schema.json")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "the name is empty"),
        ("price,log1p", "no comma"),
        (" price", "no blank"),
        ("price\u00a0", "no blank"),
        ("price\n", "no blank"),
        ("a\nb", "no control character"),
        ("a\0b", "no control character"),
        ("a\x7fb", "no control character"),
        ("a\u2028b", "no line separator"),
        ("a\ud800b", "no half of a surrogate pair"),
        ("/price", "no.* slash"),
        *((name, "column of the logs or samples, or the served network's output") for name in sorted(RESERVED)),
    ],
)
def test_names_that_cannot_be_are_refused(name, complaint):
    raw = copy.deepcopy(SCHEMA)
    raw["features"][0]["name"] = name
    with pytest.raises(InputError, match=f"{complaint}.*rename the feature") as caught:
        parse_schema(raw, "schema.json")
    assert len(str(caught.value).splitlines()) == 1


@given(st.text(min_size=1))
def test_any_other_name_is_taken(name):
    raw = copy.deepcopy(SCHEMA)
    raw["features"][0]["name"] = name
    bad = {"Cc", "Cs", "Zl", "Zp"} & {unicodedata.category(c) for c in name}
    refused = bad or "," in name or name != name.strip() or name[0] == "/" or name in RESERVED | set(raw["hand_picked"])
    try:
        assert parse_schema(raw, "here").names[0] == name and not refused
    except InputError:
        assert refused or name in {feature["name"] for feature in SCHEMA["features"]}


def test_what_says_nothing_is_not_written(tmp_path):
    """So that the fingerprints of schemas of earlier versions stay."""
    plain = parse_schema(SCHEMA, "here")
    plain.save(tmp_path)
    written = json.loads((tmp_path / "schema.json").read_text())["features"]
    assert {key for feature in written for key in feature} == {
        *("name", "side", "kind", "source", "fetch_us", "size", "dim", "teacher_only")
    }
    raw = copy.deepcopy(SCHEMA)
    raw["features"][0]["missing"], raw["features"][3]["missing"] = [-999, -1.5], [7, 2**64 - 1]
    raw["features"][3]["hash"] = True
    schema = parse_schema(raw, "here")
    schema.save(tmp_path)
    assert load_schema(tmp_path) == schema and schema.by_name["query_city"].missing == (7, 2**64 - 1)
    assert schema.by_name["query_city"].hash and schema != plain and hash(schema.features[0])


@pytest.mark.parametrize(
    ("twice", "complaint"),
    [
        ('"kind": "dense", "kind": "dense"', "'kind' is given twice in 'price'"),
        ('"kind": "dense", "missing": [1], "missing": [2]', "'missing' is given twice in 'price'"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(twice, complaint, tmp_path):
    text = json.dumps({"fetch": SCHEMA["fetch"], "features": [{**SCHEMA["features"][5]}]})
    assert '"kind": "dense"' in text
    (tmp_path / "schema.json").write_text(text.replace('"kind": "dense"', twice))
    with pytest.raises(InputError, match=f"schema.json: key {complaint}; keep one"):
        load_schema(tmp_path)
    (tmp_path / "schema.json").write_text(text[:-1] + ', "fetch": {"F1": {"per_feature_us": 3}}}')
    with pytest.raises(InputError, match="key 'fetch' is given twice; keep one"):
        load_schema(tmp_path)


def test_missing_or_broken_file(tmp_path):
    with pytest.raises(InputError, match=r"schema.json: missing"):
        load_schema(tmp_path)
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA)[:50])
    with pytest.raises(InputError, match="not JSON"):
        load_schema(tmp_path)
