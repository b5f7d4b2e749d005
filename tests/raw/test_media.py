"""Images, sound and video, as the libraries write them."""

from __future__ import annotations

import io
import pickle
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

import splitpipe as sp
from splitpipe.raw.media import audio, image, json, text, video
from splitpipe.raw.media.resampling import resampled

DECODERS = [
    image(),
    image(size=(4, 6), mode="L", fit="contain"),
    audio(rate=16000, channels=1),
    video(frames=3, size=8),
    text(),
    json(),
]


def gradient(height: int, width: int) -> Any:
    rows = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    columns = np.linspace(0, 255, width).astype(np.uint8)[None, :]
    red, green = np.broadcast_arrays(rows, columns)
    return np.stack([red, green, 255 - red], axis=2)


def encoded(array: Any, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("decoder", DECODERS, ids=repr)
def test_decoders_are_values(decoder: Any) -> None:
    again = pickle.loads(pickle.dumps(decoder))
    assert again == decoder
    assert hash(again) == hash(decoder)
    assert again.field == decoder.field


@pytest.mark.parametrize("decoder", DECODERS, ids=repr)
@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WAVE"])
def test_what_cannot_be_decoded_is_a_corrupt_record(decoder: Any, data: bytes) -> None:
    if decoder == text() and data.isascii():
        return
    with pytest.raises(sp.CorruptRecord):
        decoder(data)


# --- images


@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("WebP", {"lossless": True}), ("BMP", {}), ("TIFF", {})],
)
def test_lossless_images_come_back(form: str, options: dict[str, Any]) -> None:
    array = gradient(33, 47)
    assert np.array_equal(image()(encoded(array, form, **options)), array)


@pytest.mark.parametrize("form", ["JPEG", "WebP"])
def test_others_come_back_nearly(form: str) -> None:
    array = gradient(64, 96)
    found = image()(encoded(array, form, quality=95))
    assert np.abs(found.astype(int) - array).mean() < 3


@pytest.mark.parametrize("draft", [True, False])
@pytest.mark.parametrize(("height", "width"), [(400, 600), (600, 400), (20, 30), (1000, 64)])
def test_cover_fills_the_size_from_the_middle(draft: bool, height: int, width: int) -> None:
    decoder = image(size=(48, 64), draft=draft)
    found = decoder(encoded(gradient(height, width), "JPEG", quality=95))
    assert found.shape == (48, 64, 3) == decoder.field.shape
    middle = found[23:25, 31:33].mean(axis=(0, 1))
    assert np.abs(middle - 127.5).max() < 8


def test_contain_keeps_all_and_grows_nothing() -> None:
    decoder = image(size=100, fit="contain")
    assert decoder(encoded(gradient(400, 200), "PNG")).shape == (100, 50, 3)
    assert decoder(encoded(gradient(40, 20), "PNG")).shape == (40, 20, 3)
    assert decoder.field.shape == (None, None, 3)
    assert image(size=(30, 10), fit="stretch")(encoded(gradient(9, 9), "PNG")).shape == (30, 10, 3)


def test_modes() -> None:
    array = gradient(8, 9)
    assert image(mode="L")(encoded(array, "PNG")).shape == (8, 9)
    assert image(mode="RGBA")(encoded(array, "PNG")).shape == (8, 9, 4)
    grey = np.full((5, 6), 77, np.uint8)
    assert np.array_equal(image()(encoded(grey, "PNG")), np.full((5, 6, 3), 77))
    deep = np.full((5, 6), 0x8001, np.uint16)
    assert np.array_equal(image(mode="L")(encoded(deep, "PNG")), np.full((5, 6), 0x80))


def test_images_are_turned_as_the_camera_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    data = encoded(gradient(20, 30), "JPEG", exif=exif, quality=95)
    assert image()(data).shape == (30, 20, 3)
    assert image(orient=False)(data).shape == (20, 30, 3)


def test_pillow_images_on_request() -> None:
    picture = image(array=False, size=7)(encoded(gradient(9, 9), "PNG"))
    assert isinstance(picture, Image.Image)
    assert picture.size == (7, 7)


def test_an_image_that_is_too_large_is_refused_before_it_is_decoded() -> None:
    data = encoded(np.zeros((500, 500), np.uint8), "PNG")
    with pytest.raises(sp.CorruptRecord, match="max_pixels"):
        image(max_pixels=1000)(data)


def test_an_image_that_was_cut_is_refused() -> None:
    for form in ("JPEG", "PNG", "WebP"):
        data = encoded(gradient(200, 200), form)
        with pytest.raises(sp.CorruptRecord, match="decoded"):
            image()(data[: len(data) // 2])


@pytest.mark.parametrize(
    "given",
    [
        {"size": 0},
        {"size": (1, 2, 3)},
        {"size": "big"},
        {"size": 4, "fit": "squeeze"},
        {"mode": "CMYK"},
    ],
)
def test_options_of_images_that_mean_nothing(given: dict[str, Any]) -> None:
    with pytest.raises(sp.FormatError):
        image(**given)


# --- sound


def tone(rate: int, seconds: float, channels: int = 1) -> Any:
    times = np.arange(round(rate * seconds)) / rate
    return 0.5 * np.sin(2 * np.pi * 440 * times[:, None] * (1 + np.arange(channels)))


def sound(samples: Any, rate: int, form: str, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_sound_comes_back(form: str) -> None:
    wave = (tone(8000, 0.5, 2) * 32767).astype(np.int16)
    data = sound(wave, 8000, form)
    found = audio(dtype="int16")(data)
    assert found.rate == 8000
    assert np.array_equal(found.samples, wave)
    part = audio(dtype="int16", start_s=0.1, duration_s=0.2)(data)
    assert np.array_equal(part.samples, wave[800:2400])
    assert len(audio(start_s=0.4, duration_s=5)(data).samples) == 800
    assert len(audio(start_s=9)(data).samples) == 0


def test_channels_are_mixed() -> None:
    wave = np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1)
    data = sound(wave, 8000, "WAV", "FLOAT")
    assert np.allclose(audio(channels=1)(data).samples, 0.125)
    one = sound(wave[:, :1], 8000, "WAV", "FLOAT")
    assert np.array_equal(audio(channels=2)(one).samples, np.full((100, 2), 0.5))
    with pytest.raises(sp.CorruptRecord, match="channels"):
        audio(channels=3)(data)


@pytest.mark.parametrize(("rate", "wanted"), [(8000, 16000), (44100, 16000), (16000, 44100)])
def test_another_rate_keeps_the_tone(rate: int, wanted: int) -> None:
    found = audio(rate=wanted, dtype="float64")(sound(tone(rate, 1.0), rate, "WAV", "DOUBLE"))
    assert found.rate == wanted
    assert found.samples.shape == (wanted, 1)
    edge = wanted // 20
    assert np.abs(found.samples - tone(wanted, 1.0))[edge:-edge].max() < 1e-3


def test_what_is_above_the_new_band_is_gone() -> None:
    times = np.arange(16000) / 16000
    high = np.sin(2 * np.pi * 6000 * times)[:, None]
    assert np.abs(resampled(high, 16000, 8000)[400:-400]).max() < 1e-3


def test_sound_that_is_too_long_is_refused() -> None:
    data = sound(tone(8000, 1.0), 8000, "WAV")
    with pytest.raises(sp.CorruptRecord, match="max_nbytes"):
        audio(max_nbytes=1000)(data)
    assert len(audio(max_nbytes=1000, duration_s=0.01)(data).samples) == 80


def test_sound_that_was_cut_is_refused() -> None:
    data = sound(tone(8000, 2.0), 8000, "FLAC")
    with pytest.raises(sp.CorruptRecord):
        audio()(data[: len(data) // 2])


@pytest.mark.parametrize(
    "given",
    [{"dtype": "uint8"}, {"rate": 8000, "dtype": "int16"}, {"rate": 0}, {"start_s": -1}],
)
def test_options_of_sound_that_mean_nothing(given: dict[str, Any]) -> None:
    with pytest.raises(sp.FormatError):
        audio(**given)


# --- video

FPS, FRAMES = 25, 100


def level(number: int) -> int:
    return 20 + 2 * number


@pytest.fixture(scope="module")
def clip() -> bytes:
    """Four seconds, each frame of its own brightness, a key frame every twelve."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 12
        stream.bit_rate = 4_000_000
        for number in range(FRAMES):
            array = np.full((48, 64, 3), level(number), np.uint8)
            array[:, number % 64] = 255 - level(number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def numbers(found: Any) -> list[int]:
    return [round((float(np.median(frame)) - 20) / 2) for frame in found.frames]


def test_all_frames(clip: bytes) -> None:
    found = video()(clip)
    assert found.frames.shape == (FRAMES, 48, 64, 3)
    assert found.rate == FPS
    assert np.abs(np.array(numbers(found)) - np.arange(FRAMES)).max() <= 3
    assert len({frame.tobytes() for frame in found.frames}) == FRAMES


def test_the_frame_at_a_time_is_the_one_that_is_shown(clip: bytes) -> None:
    whole = video()(clip).frames
    for frames in (1, 4, 7, 30, 100):
        found = video(frames=frames)(clip).frames
        times = (np.arange(frames) + 0.5) * (FRAMES / FPS) / frames
        expected = whole[np.floor(times * FPS + 1e-6).astype(int)]
        assert np.array_equal(found, expected), frames


def test_so_many_a_second(clip: bytes) -> None:
    whole = video()(clip).frames
    found = video(fps=5)(clip)
    assert found.rate == 5
    assert np.array_equal(found.frames, whole[::5])
    found = video(fps=12.5, start_s=1.0, stop_s=3.0)(clip)
    assert np.array_equal(found.frames, whole[25:75:2])
    assert np.array_equal(video(fps=5, frames=3)(clip).frames, whole[:15:5])


def test_a_part_of_it(clip: bytes) -> None:
    whole = video()(clip).frames
    assert np.array_equal(video(start_s=1.2, stop_s=2.0)(clip).frames, whole[30:50])
    found = video(start_s=2.0, frames=2)(clip).frames
    assert np.array_equal(found, whole[[62, 87]])
    for late in (video(start_s=9.0), video(start_s=9.0, frames=2)):
        with pytest.raises(sp.CorruptRecord):
            late(clip)


def test_frames_of_another_size(clip: bytes) -> None:
    assert video(frames=2, size=(12, 16))(clip).frames.shape == (2, 12, 16, 3)


def test_video_that_is_too_long_is_refused(clip: bytes) -> None:
    with pytest.raises(sp.CorruptRecord, match="max_nbytes"):
        video(max_nbytes=100_000)(clip)
    assert len(video(max_nbytes=100_000, frames=5)(clip).frames) == 5


def test_sound_is_no_video() -> None:
    with pytest.raises(sp.CorruptRecord):
        video()(sound(tone(8000, 0.5), 8000, "WAV"))


@pytest.mark.parametrize(
    "given", [{"frames": 0}, {"fps": 0}, {"start_s": 2, "stop_s": 1}, {"size": -1}]
)
def test_options_of_video_that_mean_nothing(given: dict[str, Any]) -> None:
    with pytest.raises(sp.FormatError):
        video(**given)
