"""Values as bytes: what goes in comes out, whatever the bytes are nothing else does."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import sys
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from splitpipe.codecs import Compressed, Reading, Zstd, codec, train
from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.schema import Field, audio, image, ndarray, scalar, video

DTYPES = hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes(sizes=(16, 32, 64))
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
).filter(lambda value: isinstance(value, list | dict))
# Also halves of surrogate pairs, which are no text: JSON has them, as escapes.
ANY_TEXT = st.text(st.characters())
ANY_DOCUMENT = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
)
SPLIT_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
MAGICLESS = zstandard.FORMAT_ZSTD1_MAGICLESS


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(
            left, right, equal_nan=left.dtype.kind == "f"
        )
    return type(left) is type(right) and (left == right or left != left)


class TestRoundTrips:
    @given(st.data())
    def test_arrays(self, data: st.DataObject) -> None:
        array = data.draw(hnp.arrays(data.draw(DTYPES), hnp.array_shapes(min_dims=0, min_side=0)))
        free = data.draw(st.lists(st.booleans(), min_size=array.ndim, max_size=array.ndim))
        partly = tuple(None if f else n for f, n in zip(free, array.shape, strict=True))
        for shape in (None, partly, array.shape):
            for compression in (None, "zstd"):
                field = Field("ndarray", array.dtype.name, shape, compression)
                found = codec(field).decode(codec(field).encode(array))
                assert same(found, array.astype(array.dtype.newbyteorder("=")))
                assert found.flags.writeable
                assert found.flags.owndata

    @given(st.integers(-(1 << 63), (1 << 63) - 1) | st.floats() | st.booleans() | TEXT | DOCUMENTS)
    def test_what_a_value_suggests_holds_it(self, value: Any) -> None:
        for field in (Field.of(value), Field.of(value).compressed()):
            assert same(codec(field).decode(codec(field).encode(value)), value)

    @pytest.mark.parametrize(
        "value", [np.datetime64("2020-01-02", "ns"), np.timedelta64(5, "s"), np.complex64(1 + 2j)]
    )
    def test_other_scalars(self, value: Any) -> None:
        field = Field.of(value)
        found = codec(field).decode(codec(field).encode(value))
        assert found == value
        assert isinstance(found, complex) or found.dtype == value.dtype

    def test_buffers_are_copied(self) -> None:
        buffer = bytearray(b"abc")
        data = codec(Field("bytes")).encode(buffer)
        buffer[0] = 0
        assert data == b"abc"
        strided = memoryview(b"abcdef")[::2]
        assert codec(Field("bytes")).encode(strided) == b"ace"

    @given(ANY_DOCUMENT)
    @example("\ud800")
    @example({"\udc80": ["\u00fc\ud83d", "\udc00\ud800", "\U0001f600"]})
    def test_json_of_any_text(self, value: Any) -> None:
        try:
            stored = codec(Field("json")).encode(value)
        except FormatError:
            assert SPLIT_PAIR.search(json.dumps(value, ensure_ascii=False))
            return
        assert codec(Field("json")).decode(stored) == value
        assert json.loads(stored.decode()) == value

    def test_json_of_a_pair_that_was_split_is_refused(self) -> None:
        """Escaped, its halves would be read as the one character: another value."""
        with pytest.raises(FormatError, match="both halves of a surrogate pair"):
            codec(Field("json")).encode(["\ud83d\ude00"])

    def test_json_is_not_escaped_without_need(self) -> None:
        assert codec(Field("json")).encode(["\u00fc"]) == '["\u00fc"]'.encode()

    def test_arrays_lie_as_described(self) -> None:
        array = np.arange(6, dtype=">u2").reshape(2, 3)
        raw = struct.pack("<6H", *range(6))
        assert codec(ndarray("uint16", (2, 3))).encode(array) == raw
        assert codec(ndarray("uint16", (None, 3))).encode(array) == raw + struct.pack("<Q", 2)
        assert codec(ndarray("uint16")).encode(array) == raw + struct.pack("<QQB", 2, 3, 2)

    def test_batches_fill_an_array(self) -> None:
        for compression in (None, "zstd"):
            field = Field("ndarray", "int32", (2, 2), compression)
            rows = np.arange(12, dtype=np.int32).reshape(3, 2, 2)
            out = np.empty_like(rows)
            codec(field).decode_into([codec(field).encode(row) for row in rows], out)
            assert (out == rows).all()


class TestDamage:
    FIELDS = (
        Field("str"),
        Field("json"),
        scalar("int64"),
        scalar("float16"),
        ndarray("int16", (3,)),
        ndarray("int16", (None, 3)),
        ndarray("int16", (None, None)),
        ndarray("float64"),
    )

    @given(field=st.sampled_from(FIELDS), compressed=st.booleans(), data=st.binary(max_size=80))
    @example(ndarray("int16", (None, 3)), False, struct.pack("<Q", 1 << 63))
    @example(ndarray("float64"), False, struct.pack("<QQB", 0, 1 << 63, 2))
    @example(ndarray("float64"), False, b"\xff" * 257)
    @example(Field("json"), False, b"[" * 80)
    def test_any_bytes_are_a_value_or_corrupt(
        self, field: Field, compressed: bool, data: bytes
    ) -> None:
        reader = codec(field.compressed("zstd" if compressed else None))
        try:
            value = reader.decode(data)
        except CorruptRecord:
            return
        assert same(reader.decode(reader.encode(value)), value)

    def test_of_another_length_fill_no_array(self) -> None:
        with pytest.raises(CorruptRecord, match="3 bytes are no"):
            codec(scalar("int64")).decode_into([b"12345678", b"123"], np.empty(2, dtype=np.int64))

    def test_what_is_no_array_fills_none(self) -> None:
        with pytest.raises(FormatError, match="make no array"):
            codec(Field("str")).decode_into([b""], np.empty(1))


class TestPickle:
    def test_is_read_only_when_the_reader_says_so(self) -> None:
        field = Field("pickle")
        data = codec(field).encode({1, 2})
        with pytest.raises(FormatError, match="allow_pickle=True"):
            codec(field).decode(data)
        assert codec(field, reading=Reading(allow_pickle=True)).decode(data) == {1, 2}

    def test_what_cannot_be_pickled_is_refused(self) -> None:
        with pytest.raises(FormatError, match="cannot be pickled"):
            codec(Field("pickle")).encode(lambda: 1)

    def test_damage_is_corrupt(self) -> None:
        with pytest.raises(CorruptRecord, match="cannot be unpickled"):
            codec(Field("pickle"), reading=Reading(allow_pickle=True)).decode(pickle.dumps(1)[:-1])


TEXTS = [
    f"record {n}: the quick brown fox jumps over {n % 7} lazy dogs".encode() for n in range(2000)
]


class TestZstd:
    def test_a_trained_dictionary_makes_small_values_smaller(self) -> None:
        field = Field("bytes", compression="zstd")
        dictionary = train(TEXTS)
        assert dictionary
        alone, together = codec(field), codec(field, dictionary=dictionary)
        sizes = [sum(len(c.encode(text)) for text in TEXTS) for c in (alone, together)]
        assert sizes[1] < sizes[0] / 2
        assert [together.decode(together.encode(t)) for t in TEXTS] == TEXTS

    def test_another_dictionary_is_not_read_wrongly_in_silence(self) -> None:
        field = Field("bytes", compression="zstd")
        right = codec(field, dictionary=train(TEXTS))
        other = codec(field, dictionary=train([t[::-1] for t in TEXTS]))
        for text in TEXTS[:50]:
            try:
                assert len(other.decode(right.encode(text))) == len(text)
            except CorruptRecord:
                continue

    def test_too_few_values_train_nothing(self) -> None:
        assert train([]) == b""
        assert train([b"x"] * 15) == b""
        assert train([bytes([n % 256]) for n in range(20)]) == b""

    def test_a_bomb_is_refused_before_it_goes_off(self) -> None:
        # One block that repeats a byte 128 Ki times, in a frame that claims a terabyte.
        block = (1 | 1 << 1 | 131_072 << 3).to_bytes(3, "little") + b"x"
        claim = b"\xe0" + struct.pack("<Q", 1 << 40) + block
        honest = b"\xa0" + struct.pack("<I", 131_072) + block
        assert codec(Field("bytes", compression="zstd")).decode(honest) == b"x" * 131_072
        field = Field("bytes", compression="zstd")
        tracemalloc.start()
        try:
            with pytest.raises(
                CorruptRecord, match="13 compressed bytes claim to be 1099511627776"
            ):
                codec(field).decode(claim)
            # A stackable column knows what its values are.
            with pytest.raises(CorruptRecord, match="131072: that cannot be"):
                codec(ndarray("uint8", (10,)).compressed()).decode(honest)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()

    def test_what_compresses_best_is_not_taken_for_a_bomb(self) -> None:
        field = Field("bytes", compression="zstd")
        for size in (0, 1, 65_791, 65_792, 1 << 20, 50 << 20):
            packer = codec(field, level=19 if size < 1 << 20 else 3)
            assert packer.decode(packer.encode(bytes(size))) == bytes(size)

    def test_frames_are_as_described(self) -> None:
        packer = codec(Field("bytes", compression="zstd"))
        assert isinstance(packer, Compressed)
        for size in (0, 255, 256, 70_000):
            frame = packer.pack(bytes(size))
            said = zstandard.get_frame_parameters(frame, format=MAGICLESS)
            assert (said.content_size, said.dict_id, said.has_checksum) == (size, 0, False)

    def test_threads_share_a_codec(self) -> None:
        packer = codec(Field("bytes", compression="zstd"), dictionary=train(TEXTS))
        wrong: list[bytes] = []

        def work() -> None:
            wrong.extend(t for t in TEXTS if packer.decode(packer.encode(t)) != t)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    @pytest.mark.parametrize("level", [-8, 23, True])
    def test_levels_are_checked(self, level: int) -> None:
        with pytest.raises(FormatError, match="from -7 to 22"):
            Zstd(level=level)

    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "zstandard", None)
        with pytest.raises(FormatError, match=r"pip install 'splitpipe\[zstd\]'"):
            codec(Field("bytes", compression="zstd"))


class TestMedia:
    @pytest.mark.parametrize("field", [image(), audio(), video()], ids=repr)
    def test_are_bytes_unless_decoding_is_asked_for(self, field: Field) -> None:
        data = b"\x89PNG whatever"
        assert codec(field).decode(codec(field).encode(memoryview(data))) == data

    @pytest.mark.parametrize(
        ("field", "module", "extra"),
        [
            (image(), "PIL.Image", "image"),
            (audio(), "soundfile", "audio"),
            (video(), "av", "video"),
        ],
    )
    def test_a_missing_package_is_named(
        self, field: Field, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(FormatError, match=rf"decoding {extra} .* 'splitpipe\[{extra}\]'"):
            codec(field, reading=Reading(decode=True))

    def test_images_are_stored_without_loss_and_decoded(self) -> None:
        pillow = pytest.importorskip("PIL.Image")
        pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
        reader = codec(image(), reading=Reading(decode=True))
        for value in (pixels, pillow.fromarray(pixels)):
            data = codec(image()).encode(value)
            assert data.startswith(b"\x89PNG")
            assert np.array_equal(np.asarray(reader.decode(data)), pixels)
        with pytest.raises(CorruptRecord, match="read without decoding"):
            reader.decode(data[:40])
        with pytest.raises(FormatError, match="is no image"):
            codec(image()).encode("a name")

    def test_sound_is_stored_without_loss_and_decoded(self) -> None:
        pytest.importorskip("soundfile")
        samples = np.linspace(-1, 1, 100, dtype=np.float32).reshape(50, 2)
        data = codec(audio()).encode((samples, 16_000))
        found = codec(audio(), reading=Reading(decode=True)).decode(data)
        assert found.rate == 16_000
        assert np.array_equal(found.samples, samples)
        with pytest.raises(FormatError, match="is no sound"):
            codec(audio()).encode((["a"], 5))

    def test_video_is_decoded(self) -> None:
        av = pytest.importorskip("av")
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="avi") as container:
            stream = container.add_stream("rawvideo", rate=5)
            stream.width, stream.height, stream.pix_fmt = 16, 8, "rgb24"
            for n in range(3):
                pixels = np.full((8, 16, 3), n * 50, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        found = codec(video(), reading=Reading(decode=True)).decode(buffer.getvalue())
        assert found.frames.shape == (3, 8, 16, 3)
        assert found.frames[2, 0, 0].tolist() == [100, 100, 100]
        assert found.rate == 5

    def test_video_is_given_as_bytes(self) -> None:
        with pytest.raises(FormatError, match="stored as the bytes of its file"):
            codec(video()).encode(np.zeros((1, 2, 2, 3)))
