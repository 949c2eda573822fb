import io
import struct

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from pipeline import images
from pipeline.errors import PipelineError
from pipeline.images import decode_canvas, decode_rgb, make_room, resize
from tests.archives import jpeg


def encode(pixels: np.ndarray, kind: str, mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, kind)
    return stream.getvalue()


def test_rgb_keeps_channel_order() -> None:
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 200
    pixels = decode_rgb(encode(red, "JPEG"))
    assert pixels.shape == (3, 8, 8)
    assert pixels.dtype == torch.uint8
    assert pixels[0].float().mean() > 195
    assert pixels[1:].float().mean() < 5


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM"])
def test_formats_that_torchvision_does_not_decode(kind) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    found = decode_rgb(encode(pixels, kind))
    assert torch.equal(found, torch.from_numpy(pixels).permute(2, 0, 1))
    assert torch.equal(found, decode_rgb(encode(pixels, "PNG")))
    assert torch.equal(*decode_rgb(encode(pixels, kind, "L"))[:2])
    with pytest.raises(ValueError, match="truncated"):
        decode_rgb(encode(pixels, kind)[:-20])


@pytest.mark.parametrize("begin", [b"BM", b"II*\0", b"MM\0*", b"P6"])
def test_what_only_begins_as_a_rare_format_says_why(begin) -> None:
    for rest in (b"", b"\xff" * 40, bytes(range(200))):
        with pytest.raises(ValueError, match="."):
            decode_rgb(begin + rest)


@pytest.mark.parametrize("kind", ["TIFF", "PPM"])
def test_sixteen_bits_of_grey_are_scaled_as_those_of_a_png(kind) -> None:
    levels = np.arange(0, 2**16, 97, dtype=np.uint16).reshape(26, 26)
    assert torch.equal(decode_rgb(encode(levels, kind)), decode_rgb(encode(levels, "PNG")))


@pytest.mark.parametrize("level", [0.5, -1, 2**16])
def test_other_depths_are_refused(level) -> None:
    pixels = np.full((4, 4), level, dtype=np.float32 if level == 0.5 else np.int32)
    with pytest.raises(ValueError, match="expected 8 or 16 bits"):
        decode_rgb(encode(pixels, "TIFF"))


@pytest.mark.parametrize("content", [b"P3 2 1 255 1 2 3 4 5 6\n", b"P2 2 1 255 1 4\n"])
def test_plain_text_holds_pixels_too(content) -> None:
    assert decode_rgb(content)[0].tolist() == [[1, 4]]


def test_a_large_tiff_is_a_tiff() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((1, 2, 3), 5, dtype=np.uint8)).save(stream, "TIFF", big_tiff=True)
    assert stream.getvalue().startswith(b"II+\0")
    assert decode_rgb(stream.getvalue())[0].tolist() == [[5, 5]]


def test_a_tiff_with_the_large_byte_first() -> None:
    """One row of two pixels, which Pillow does not write in this order."""
    tags = [(256, 2), (257, 1), (258, 8), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1), (279, 2)]
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    content = b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4) + b"\x05\x09"
    assert decode_rgb(content)[0].tolist() == [[5, 9]]


@pytest.mark.parametrize(
    ("kind", "limit"), [("PNG", "MOST_PIXELS"), ("JPEG", "MOST_PIXELS"), ("BMP", "MOST_RARE_PIXELS")]
)
def test_an_image_that_claims_more_than_memory_is_for_is_not_unpacked(kind, limit, monkeypatch) -> None:
    content = encode(np.zeros((8, 16, 3), dtype=np.uint8), kind)
    monkeypatch.setattr(images, limit, 128)
    assert decode_rgb(content).shape == (3, 8, 16)
    monkeypatch.setattr(images, limit, 127)
    with pytest.raises(ValueError, match="128 pixels, more than the limit of 127"):
        decode_rgb(content)


def test_greyscale_becomes_three_equal_channels() -> None:
    pixels = decode_rgb(jpeg(0, "L"))
    assert pixels.shape == (3, 8, 8)
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[1], pixels[2])


def test_cmyk_gives_the_colours_that_pillow_gives() -> None:
    encoded = encode(np.full((8, 8, 3), (200, 30, 90), dtype=np.uint8), "JPEG", "CMYK")
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    assert np.abs(decode_rgb(encoded).permute(1, 2, 0).numpy().astype(int) - expected).max() <= 2


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    levels = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    assert decode_rgb(encode(levels, "PNG"))[0].tolist() == [[0, 1, 128, 255]]


def sampled(subsampling: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", subsampling=subsampling, progressive=subsampling == "4:2:2")
    return stream.getvalue()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(("kind", "turned"), [("JPEG", False), ("PNG", False), ("TIFF", True)])
def test_what_says_that_it_lies_on_its_side_is_turned_in_tiff_alone(monkeypatch, kind, turned, fast) -> None:
    if not fast:
        monkeypatch.setattr(images, "simplejpeg", None)
    stream, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # A quarter to the right, to be seen upright.
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[:, 12:] = 255
    Image.fromarray(pixels).save(stream, kind, exif=exif)
    found = decode_rgb(stream.getvalue())
    assert found.shape == ((3, 24, 8) if turned else (3, 8, 24))
    bright = found[:, -1, :] if turned else found[:, :, -1]
    assert int(bright.min()) > 250


def test_what_can_be_seen_through_keeps_its_colours_and_palettes_are_looked_up() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    expected = torch.from_numpy(pixels[..., :3]).permute(2, 0, 1)
    assert torch.equal(decode_rgb(encode(pixels, "PNG")), expected)
    few = pixels[..., :3] // 128 * 255
    for kind in ("PNG", "BMP"):
        found = decode_rgb(encode(few, kind, "P"))
        assert torch.equal(found, torch.from_numpy(few).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("content", "sound"),
    [
        *((sampled(kind), True) for kind in ("4:4:4", "4:2:2", "4:2:0")),
        (jpeg(1, "L"), True),
        (sampled("4:2:0")[:-90] + jpeg(2)[-2:], False),  # Of which torchvision makes what it can.
    ],
    ids=["full", "half", "quarter", "grey", "damaged"],
)
def test_the_fast_decoder_gives_the_pixels_that_torchvision_gives(monkeypatch, content, sound) -> None:
    assert (images._decode_sound_jpeg(content) is not None) == sound
    found = decode_rgb(content)
    monkeypatch.setattr(images, "simplejpeg", None)
    assert torch.equal(found, decode_rgb(content))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "Unsupported image file"),
        (jpeg(0)[:200], "incomplete or truncated"),
        (jpeg(0)[:-2], "incomplete or truncated"),
    ],
)
def test_broken_images_say_why(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        decode_rgb(content)
    assert ".cpp" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "reason"), [("GIF", "animation of 2 frames"), ("TIFF", "several pages, expected one image")]
)
def test_several_images_in_one_are_refused(kind: str, reason: str) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), level, dtype=np.uint8)) for level in (0, 255)]
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=reason):
        decode_rgb(stream.getvalue())


def test_resize_returns_the_input_where_it_fits() -> None:
    images = torch.zeros((2, 3, 8, 8), dtype=torch.uint8)
    assert resize(images, 8) is images


def test_resize_is_antialiased() -> None:
    stripes = torch.zeros((1, 3, 64, 64), dtype=torch.uint8)
    stripes[..., ::2] = 200
    halved = resize(stripes, 32)[..., 1:-1]
    assert halved.dtype == torch.uint8
    assert (halved.int() - 100).abs().max() <= 1


def test_resize_of_a_batch_equals_resize_of_each_image() -> None:
    images = torch.randint(
        0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(resize(images, 32), torch.stack([resize(image, 32) for image in images]))


def test_canvas_cuts_the_centre_square() -> None:
    wide = np.zeros((16, 48, 3), dtype=np.uint8)
    wide[:, 16:32] = 255
    canvas = decode_canvas(encode(wide, "PNG"), 16)
    assert canvas.shape == (3, 16, 16)
    assert canvas.min() == 255


def test_canvas_of_the_right_size_is_the_decoded_image() -> None:
    assert torch.equal(decode_canvas(jpeg(3), 8), decode_rgb(jpeg(3)))


def test_canvas_scales_small_images_up() -> None:
    assert decode_canvas(jpeg(3, size=(5, 9)), 16).shape == (3, 16, 16)


def test_more_images_than_memory_holds_are_told_with_what_to_do() -> None:
    with pytest.raises(PipelineError, match=r"px take 12,288,000\.0 GB, .* no memory; set replay\.images"):
        make_room(10**12, 64, "set replay.images to fewer")
