"""Every kind of tokenizer, and what they may and may not give."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import FormatError
from splitpipe.tokens.encoder import BadIds, flatten, make_encoder
from tests.tokens.making import code_points, pack

IDS = st.lists(st.integers(0, 2**32 - 1), max_size=5)
FORMS: list[Callable[[list[int]], Any]] = [
    list,
    tuple,
    lambda ids: np.array(ids, np.int64),
    lambda ids: np.array(ids, np.uint64),
    lambda ids: np.array(ids, np.uint32),
    lambda ids: {"input_ids": ids},
]


@given(st.lists(st.tuples(IDS, st.sampled_from(FORMS)), max_size=6))
def test_ids_are_joined_whatever_they_come_in(given: list[tuple[list[int], Any]]) -> None:
    ids, lengths = flatten([form(each) for each, form in given], len(given))
    assert ids.tolist() == [id for each, _ in given for id in each]
    assert lengths.tolist() == [len(each) for each, _ in given]
    assert (ids.dtype, lengths.dtype) == (np.uint32, np.int64)


def test_rows_of_one_array_and_bytes_are_ids() -> None:
    ids, lengths = flatten(np.array([[1, 2], [3, 4]]), 2)
    assert (ids.tolist(), lengths.tolist()) == ([1, 2, 3, 4], [2, 2])
    ids, lengths = flatten([b"ab", b""], 2)
    assert (ids.tolist(), lengths.tolist()) == ([97, 98], [2, 0])
    ids, lengths = flatten([bytearray(b"ab"), [5]], 2)
    assert (ids.tolist(), lengths.tolist()) == ([97, 98, 5], [2, 1])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ([-1], "-1 is not a token id"),
        ([2**32], "4294967296 is not a token id"),
        ([3, 1.5], "1.5 is not a token id"),
        (["a"], "'a' is not a token id"),
        ([None], "None is not a token id"),
        ([[1]], "is not a token id"),
        ("abc", "returned a str"),
        ({"a": 1}, "returned a dict"),
        (None, "returned a NoneType"),
        (7, "returned a int"),
        (np.array([-5, 1]), "-5 is not a token id"),
        (np.array([2**32], np.uint64), "4294967296 is not a token id"),
        (np.array([1.0]), "array of float64"),
        (np.array([[1, 2]]), "array of int64, 1x2"),
        (np.array(3), "array of int64"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("neighbours", ["alike", "lists"])
def test_what_is_no_sequence_of_ids_is_found(wrong: Any, why: str, neighbours: str) -> None:
    like = isinstance(wrong, np.ndarray) and neighbours == "alike"
    good: Any = np.array([1, 2]) if like else [1, 2]
    with pytest.raises(BadIds) as caught:
        flatten([good, good, wrong, good], 4)
    assert caught.value.at == 2
    assert why in caught.value.why


def test_arrays_of_several_kinds_are_joined_exactly() -> None:
    arrays = [np.array([2**32 - 1], np.uint64), np.array([3], np.int64), np.array([5], np.uint8)]
    ids, _ = flatten(arrays, 3)
    assert (ids.tolist(), ids.dtype) == ([2**32 - 1, 3, 5], np.uint32)
    for wrong in (np.array([-1]), np.array([2**64 - 1], np.uint64)):
        with pytest.raises(BadIds, match=f"{wrong[0]} is not a token id"):
            flatten([*arrays, wrong], 4)


def test_as_many_results_as_texts() -> None:
    for results in ([[1]], [[1], [2], [3]], None):
        with pytest.raises(FormatError, match=r"given 2 texts and returned"):
            flatten(results, 2)


class Tokenizer:
    """Enough of ``tokenizers.Tokenizer``: ids are code points."""

    truncation: Any = None
    padding: Any = None

    def encode_batch(self, texts: list[str], *, add_special_tokens: bool) -> list[Any]:
        assert not add_special_tokens
        return [Encoding(text) for text in texts]

    def get_vocab(self) -> dict[str, int]:
        return {"a": 97, "<end>": 300}

    def token_to_id(self, token: str) -> int | None:
        return self.get_vocab().get(token)

    def to_str(self) -> str:
        return "{}"


class Encoding:
    def __init__(self, text: str) -> None:
        self.ids = code_points(text)


class Transformers:
    """Enough of a tokenizer of ``transformers`` that is not a fast one."""

    name_or_path = "some/model"

    def __call__(self, texts: list[str], **options: Any) -> dict[str, list[list[int]]]:
        assert not options["add_special_tokens"]
        assert not options["truncation"]
        assert not options["padding"]
        return {"input_ids": [code_points(text) for text in texts]}

    def get_vocab(self) -> dict[str, int]:
        return {"a": 97, "<end>": 300}

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.get_vocab()[token]


class TikToken:
    """Enough of a ``tiktoken.Encoding``."""

    name = "some"
    n_vocab = 301

    def encode_ordinary_batch(self, texts: list[str]) -> list[list[int]]:
        return [code_points(text) for text in texts]

    def encode_single_token(self, token: str) -> int:
        return {"<end>": 300}[token]


@pytest.mark.parametrize(
    ("tokenizer", "name"),
    [
        (Tokenizer(), "tokenizers:Tokenizer"),
        (Transformers(), "some/model"),
        (TikToken(), "tiktoken:some"),
    ],
    ids=["tokenizers", "transformers", "tiktoken"],
)
def test_libraries_are_known_by_their_methods(tokenizer: Any, name: str) -> None:
    encoder = pickle.loads(pickle.dumps(make_encoder(tokenizer)))
    assert (encoder.name, encoder.vocabulary) == (name, 301)
    assert encoder.special("eos", "<end>") == 300
    with pytest.raises(FormatError, match=r"eos='<none>' is no token of"):
        encoder.special("eos", "<none>")
    sink, _ = pack(["abc", "d"], tokenizer, length=2, eos="<end>")
    assert [sample["tokens"].tolist() for sample in sink.samples] == [
        [97, 98],
        [99, 300],
        [100, 300],
    ]
    assert sink.samples[0]["tokens"].dtype == np.uint16
    with pytest.raises(FormatError, match="has 301 ids"):
        make_encoder(tokenizer, vocabulary=300)
    with pytest.raises(FormatError, match="batched is for functions"):
        make_encoder(tokenizer, batched=True)
    wider = make_encoder(tokenizer, vocabulary=1 << 16)
    assert (wider.vocabulary, wider.digest) == (1 << 16, encoder.digest)


@pytest.mark.parametrize("what", ["truncation", "padding"])
def test_a_tokenizer_that_changes_lengths_is_refused(what: str) -> None:
    tokenizer = Tokenizer()
    setattr(tokenizer, what, {"length": 512})
    with pytest.raises(FormatError, match=rf"its {what} is on.*no_{what}\(\)"):
        make_encoder(tokenizer)


def test_a_function_has_no_list_of_tokens() -> None:
    with pytest.raises(FormatError, match="has no list of tokens, give the id"):
        make_encoder(code_points).special("eos", "<end>")
    assert make_encoder(code_points).name == "tests.tokens.making.code_points"


@pytest.mark.parametrize("wrong", [None, 3, object()])
def test_what_is_no_tokenizer_is_refused(wrong: Any) -> None:
    with pytest.raises(FormatError, match="is no tokenizer: give"):
        make_encoder(wrong)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    library = pytest.importorskip("tokenizers")
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<end>", "<user>"],
        show_progress=False,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([str(pytest.__doc__), str(np.__doc__)], trainer)
    # Some put a token before every text by themselves; here that is the user's to say.
    tokenizer.post_processor = library.processors.TemplateProcessing(
        single="<user> $A", special_tokens=[("<user>", 1)]
    )
    return tokenizer


class TestRealTokenizers:
    """With the package ``tokenizers``, where it is installed."""

    def test_texts_come_back(self, tokenizer: Any) -> None:
        texts = ["A text, with ünïcödé.", "", "Another\n\n one <end> with its own end."]
        for workers in (0, 2):
            sink, counts = pack(
                texts, tokenizer, length=5, eos="<end>", workers=workers, block=1, remainder="keep"
            )
            joined = tokenizer.decode(sink.joined("tokens"), skip_special_tokens=False)
            assert joined == "".join(f"{text}<end>" for text in texts)
            assert counts.empty == 1
            assert sink.samples[0]["tokens"].dtype == np.uint16

    def test_it_is_known_by_what_it_is_made_of(self, tokenizer: Any, tmp_path: Path) -> None:
        path = tmp_path / "tokenizer.json"
        tokenizer.save(str(path))
        loaded, direct = make_encoder(path), make_encoder(tokenizer)
        assert loaded.digest == direct.digest
        assert len(str(direct.digest)) == 64
        assert loaded.name == "tokenizers:BPE"
        assert loaded.vocabulary == tokenizer.get_vocab_size()
        tokenizer.add_special_tokens(["<more>"])
        assert make_encoder(tokenizer).digest != direct.digest

    def test_its_own_truncation_is_refused(self, tokenizer: Any) -> None:
        tokenizer.enable_truncation(5)
        try:
            with pytest.raises(FormatError, match="truncation"):
                make_encoder(tokenizer)
        finally:
            tokenizer.no_truncation()

    def test_a_file_that_is_none(self, tmp_path: Path) -> None:
        pytest.importorskip("tokenizers")
        path = tmp_path / "tokenizer.json"
        path.write_text("{", encoding="utf-8")
        for wrong in (path, str(tmp_path / "absent.json")):
            with pytest.raises(FormatError, match=r"is no tokenizer\.json"):
                make_encoder(wrong)


def test_without_the_package_a_path_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(FormatError, match=r"splitpipe\[tokenizers\]"):
        make_encoder("tokenizer.json")
