"""What a record is made of: fields, schemas, and which values fit."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from splitpipe.errors import FormatError
from splitpipe.schema import Field, Schema, audio, fit, image, ndarray, scalar, video

FIELDS = [
    Field("bytes"),
    Field("str", compression="zstd"),
    Field("json"),
    Field("pickle"),
    image(),
    audio(),
    video(),
    scalar("bool"),
    scalar(np.float16),
    scalar("datetime64[ns]"),
    ndarray("uint16", 2048),
    ndarray("float64", (None, 3)),
    ndarray(">i4"),
    ndarray("complex64", ()),
]
NAMES = st.sampled_from(["bare", "columns", "name", "type"])
DOCUMENTS = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
)


class TestFields:
    @pytest.mark.parametrize("field", FIELDS, ids=repr)
    def test_survive_json_and_pickling(self, field: Field) -> None:
        assert Field.from_json(json.loads(json.dumps(field.to_json()))) == field
        assert pickle.loads(pickle.dumps(field)) == field
        assert Field.parse(field) is field
        assert hash(field) == hash(Field.from_json(field.to_json()))

    @pytest.mark.parametrize(
        ("said", "meant"),
        [
            ("str", Field("str")),
            (str, Field("str")),
            (bytes, Field("bytes")),
            ("int64", scalar("int64")),
            (int, scalar("int64")),
            (np.dtype("<f4"), scalar("float32")),
            (np.uint8, scalar("uint8")),
            ({"type": "ndarray", "dtype": "int8", "shape": [None]}, ndarray("int8", (None,))),
        ],
    )
    def test_may_be_said_in_short(self, said: Any, meant: Field) -> None:
        assert Field.parse(said) == meant

    @pytest.mark.parametrize(
        ("value", "field"),
        [
            (b"x", Field("bytes")),
            (bytearray(b"x"), Field("bytes")),
            ("x", Field("str")),
            (True, scalar("bool")),
            (1, scalar("int64")),
            (1.5, scalar("float64")),
            (np.float32(1), scalar("float32")),
            (np.array(7, dtype=np.uint8), scalar("uint8")),
            ([1], Field("json")),
            ({"a": 1}, Field("json")),
            (np.zeros((2, 0), dtype=np.int8), ndarray("int8", (2, 0))),
        ],
    )
    def test_follow_from_a_value(self, value: Any, field: Field) -> None:
        assert Field.of(value) == field

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ("text", "no type of column"),
            ("ndarray", "needs its dtype"),
            ("object", "cannot have elements"),
            ("S5", "use booleans"),
            ("float128", "use booleans|no type of column"),
            ("datetime64", "needs a unit"),
            (None, "cannot have elements"),
            ({"type": "str", "dtype": "int8"}, "has no dtype"),
            ({"type": "str", "shape": [2]}, "has no shape"),
            ({"type": "ndarray", "dtype": "int8", "shape": [-1]}, "lengths or None"),
            ({"type": "ndarray", "dtype": "int8", "shape": [True]}, "lengths or None"),
            ({"type": "ndarray", "dtype": "int8", "shape": [1 << 40, 1 << 40]}, "too large"),
            ({"type": "ndarray", "dtype": "int8", "shape": [1] * 33}, "at most 32"),
            ({"type": "ndarray", "dtype": "int8", "shape": 5}, "must be a list"),
            ({"type": "ndarray", "dtype": 5}, "cannot have 5"),
            ({"type": "str", "compression": "lz4"}, "None or 'zstd'"),
            ({}, "kind"),
        ],
    )
    def test_that_cannot_be_are_refused(self, said: Any, message: str) -> None:
        with pytest.raises(FormatError, match=message):
            Field.parse(said)

    def test_know_whether_they_stack(self) -> None:
        assert ndarray("float32", (3, 4)).nbytes == 48
        assert scalar("int16").nbytes == 2
        assert ndarray("float32", ()).stackable
        assert not ndarray("float32").stackable
        assert Field("str").nbytes is None


class TestSchemas:
    def test_survive_json_and_pickling(self) -> None:
        for schema in (Schema({f"f{n}": field for n, field in enumerate(FIELDS)}), Schema("str")):
            assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
            assert pickle.loads(pickle.dumps(schema)) == schema

    def test_order_and_bareness_count(self) -> None:
        assert Schema({"a": "str", "b": "str"}) != Schema({"b": "str", "a": "str"})
        assert Schema("str") != Schema({"data": "str"})
        assert Schema("str").bare
        assert not Schema({"data": "str"}).bare

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError, match="make another"):
            Schema("str").bare = False

    def test_are_inferred_from_a_record(self) -> None:
        assert Schema.infer(b"x") == Schema("bytes")
        assert Schema.infer({"a": 1, "b": [2]}) == Schema({"a": "int64", "b": "json"})
        with pytest.raises(FormatError, match=r"field 'b': no type of column follows from None"):
            Schema.infer({"a": 1, "b": None})

    @pytest.mark.parametrize("name", ["", "1a", "a b", "ä", "a-b", "a" * 129, 5, None])
    def test_names_are_identifiers(self, name: Any) -> None:
        with pytest.raises(FormatError, match="cannot name a column"):
            Schema({name: "str"})

    def test_need_a_column(self) -> None:
        with pytest.raises(FormatError, match="at least one column"):
            Schema({})

    def test_say_which_field_does_not_fit(self) -> None:
        schema = Schema({"a": "uint8", "b": ndarray("float32", (2,))})
        schema.check({"a": 255, "b": None})
        schema.check({"b": [1, 2]})
        for record, message in (
            ({"a": -1}, "field 'a': -1 is out of the range of uint8"),
            ({"a": 1.5}, "field 'a': 1.5 does not fit uint8"),
            ({"a": "1"}, "field 'a'"),
            ({"b": [1, 2, 3]}, r"field 'b': its shape is \(3,\), not \(2,\)"),
            ({"c": 1}, "field 'c': there is no such column; columns: 'a', 'b'"),
            ([1, 2], "must be a dict of 'a', 'b', not a list"),
        ):
            with pytest.raises(FormatError, match=message):
                schema.check(record)

    def test_columns_are_chosen_by_name(self) -> None:
        schema = Schema({"a": "str", "b": "int8", "c": "json"})
        assert schema.select(["c", "a"]) == Schema({"c": "json", "a": "str"})
        for names in (["d"], ["a", "a"]):
            with pytest.raises(FormatError, match=r"'a', 'b', 'c'|twice"):
                schema.select(names)
        with pytest.raises(FormatError, match="already"):
            schema.with_field("a", "str")

    @given(document=DOCUMENTS)
    def test_anything_else_is_refused(self, document: Any) -> None:
        with pytest.raises(FormatError):
            Schema.from_json(document)


class TestFitting:
    @given(value=hnp.arrays(hnp.integer_dtypes(endianness="?"), hnp.array_shapes(max_dims=2)))
    def test_integers_fit_where_their_values_do(self, value: Any) -> None:
        for name in ("int8", "uint8", "int32", "uint32", "int64", "uint64"):
            limits = np.iinfo(name)
            inside = limits.min <= int(value.min()) and int(value.max()) <= limits.max
            if inside:
                assert (fit(ndarray(name), value) == value).all()
            else:
                with pytest.raises(FormatError, match="out of the range"):
                    fit(ndarray(name), value)

    def test_only_python_numbers_take_a_width(self) -> None:
        assert fit(scalar("float32"), 0.1) == np.float32(0.1)
        assert fit(scalar("float32"), 7).dtype == np.float32
        with pytest.raises(FormatError, match=r"convert it first.*astype\('float32'\)"):
            fit(scalar("float32"), np.float64(0.1))
        with pytest.raises(FormatError, match="float64 does not fit float32"):
            fit(ndarray("float32"), np.zeros(3))

    def test_nothing_becomes_something_else(self) -> None:
        for field, value in (
            (scalar("bool"), 1),
            (scalar("int64"), 1.0),
            (scalar("int64"), 1 << 70),
            (scalar("float64"), 1j),
            (scalar("float64"), "1"),
            (Field("str"), b"x"),
            (Field("str"), "\ud800"),
            (Field("bytes"), "x"),
            (Field("json"), {1, 2}),
            (Field("json"), b"x"),
            (ndarray("int8"), [[1], [2, 3]]),
        ):
            with pytest.raises(FormatError):
                fit(field, value)

    def test_byte_order_is_ours(self) -> None:
        stored = fit(ndarray("int32"), np.array([1, 2], dtype=">i4"))
        assert stored.tobytes() == b"\1\0\0\0\2\0\0\0"
