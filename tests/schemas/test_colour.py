"""Every way in which a file says its colours gives the sRGB that the standards' formulas give, within two levels."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from curation.images.decode import decode
from curation.images.header import Unreadable, read_header
from schemas.colour import BT709, SRGB, profile_of
from schemas.pixels import RefusedPixels, open_rgb
from tests.photos import encode, in_jp2, linear_grey, photo, quadrants, swapped_primaries, with_chunks

STORED = np.array([[200, 90, 60], [60, 160, 90], [90, 100, 190], [128, 128, 128], [16, 30, 25], [240, 250, 235]])
D65 = (0.3127, 0.3290)
P3 = (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
BT2020 = (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
ADOBE = (*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


def to_xyz(xy: tuple[float, ...]) -> np.ndarray:
    """Linear RGB of a colour space to XYZ (SMPTE RP 177)."""
    white, *primaries = ([x / y, 1, (1 - x - y) / y] for x, y in zip(xy[::2], xy[1::2], strict=True))
    columns = np.transpose(primaries)
    return columns * np.linalg.solve(columns, white)


def seen_in_srgb(stored: np.ndarray, xy: tuple[float, ...], light: Any) -> np.ndarray:
    """8-bit sRGB (IEC 61966-2-1) of 8-bit numbers of a colour space whose white is D65."""
    linear = light(stored / 255)
    if xy != BT709:  # a matrix whose inverse is its own
        linear = linear @ (np.linalg.inv(to_xyz(BT709)) @ to_xyz(xy)).T
    linear = np.clip(linear, 0, 1)
    return np.rint(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def srgb(v: np.ndarray) -> np.ndarray:
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def bt709(v: np.ndarray) -> np.ndarray:
    return np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))


def linear(v: np.ndarray) -> np.ndarray:
    return v


def power(gamma: float) -> Any:
    return lambda v: v**gamma


def strip(stored: np.ndarray = STORED) -> Image.Image:
    """Patches of 8 x 8 px, one beside the other."""
    return Image.fromarray(stored.astype(np.uint8)[None].repeat(8, axis=0).repeat(8, axis=1))


def png(*chunks: tuple[bytes, bytes], stored: np.ndarray = STORED) -> bytes:
    return with_chunks(encode(strip(stored), "PNG"), *chunks)


def patches(data: bytes) -> np.ndarray:
    return np.asarray(open_rgb(data), int)[4, 4::8]


def cicp(primaries: int, transfer: int, full: int = 1) -> tuple[bytes, bytes]:
    return b"cICP", bytes((primaries, transfer, 0, full))


def gama(exponent: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(exponent * 100_000))


def chrm(xy: tuple[float, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in xy))


def jp2(colr: bytes, image: Image.Image | None = None) -> bytes:
    """A JP2 whose `colr` box has another content."""
    return in_jp2(encode(image or strip(), "JPEG2000"), colr)


def inks() -> bytes:
    """A CMYK profile (ICC.1:2001, 6.5.8) whose paper is white, and whose every ink makes it darker."""
    corners = [(255 * (15 - bits) // 15, 128 + 40 * (bits >> 2 & 1), 128 - 30 * (bits >> 3)) for bits in range(16)]
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    lut += ramp * 4 + b"".join(map(bytes, corners)) + ramp * 3
    header = struct.pack(">II4s4s4s4s12s4s28s", 128 + 16 + len(lut), 0, b"\2\x40\0\0", b"prtr", b"CMYK", b"Lab ",
                         bytes(12), b"acsp", bytes(28))  # fmt: skip
    header += struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return header + struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut


def avif(primaries: int, transfer: int) -> bytes:
    data = encode(strip(), "AVIF", quality=100, subsampling="4:4:4")
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def in_exif(space: int, index: bytes | None) -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = space
    if index:
        exif.get_ifd(0x8769)[0xA005] = {1: index.decode()}
    return exif


CASES = {
    "cICP Display P3": (png(cicp(12, 13)), P3, srgb, "cicp"),
    "cICP BT.2020": (png(cicp(9, 14)), BT2020, bt709, "cicp"),
    "cICP BT.709": (png(cicp(1, 1)), BT709, bt709, "cicp"),
    "cICP linear": (png(cicp(1, 8)), BT709, linear, "cicp"),
    "cICP sRGB": (png(cicp(1, 13)), BT709, srgb, "cicp"),
    "gAMA linear": (png(gama(1.0)), BT709, linear, "gamma"),
    "gAMA of old Macs": (png(gama(1 / 1.8)), BT709, power(1.8), "gamma"),
    "gAMA and cHRM of Adobe RGB": (png(gama(256 / 563), chrm(ADOBE)), ADOBE, power(563 / 256), "gamma"),
    "gAMA and cHRM of P3": (png(gama(1 / 2.6), chrm(P3)), P3, power(2.6), "gamma"),
    "cHRM alone": (png(chrm(P3)), P3, srgb, "gamma"),
    "gAMA of sRGB": (png(gama(0.45455), chrm(BT709)), BT709, srgb, "gamma"),
    "sRGB": (png((b"sRGB", b"\0")), BT709, srgb, "srgb"),
    "AVIF Display P3": (avif(12, 13), P3, srgb, "nclx"),
    "AVIF BT.2020": (avif(9, 1), BT2020, bt709, "nclx"),
    "AVIF sRGB": (avif(1, 13), BT709, srgb, "nclx"),
    "JP2 code points": (jp2(struct.pack(">BBBHHHB", 5, 0, 0, 12, 13, 0, 0x80)), P3, srgb, "cicp"),
    "JP2 sRGB": (jp2(struct.pack(">BBBI", 1, 0, 0, 16)), BT709, srgb, "enumerated"),
    "EXIF Adobe RGB": (
        encode(strip(), "JPEG", quality=100, subsampling=0, exif=in_exif(0xFFFF, b"R03")), ADOBE, power(563 / 256),
        "exif",
    ),
    "EXIF sRGB": (
        encode(strip(), "JPEG", quality=100, subsampling=0, exif=in_exif(1, b"R98")), BT709, srgb, None,
    ),
}  # fmt: skip
"""Name -> a file, the primaries and the curve that it names, and what `images.colour` says."""


@pytest.mark.parametrize("name", CASES)
def test_described_colours_come_out_as_srgb(name: str) -> None:
    data, xy, light, source = CASES[name]
    lossy = 2 if name.startswith(("AVIF", "EXIF")) else 0
    expected = seen_in_srgb(STORED, xy, light)
    assert np.abs(patches(data) - expected).max() <= 2 + lossy * 2
    assert decode(data).header.colour == source == read_header(data).colour


@pytest.mark.parametrize("name", ["cICP sRGB", "gAMA of sRGB", "sRGB", "JP2 sRGB"])
def test_what_is_srgb_already_is_not_touched(name: str) -> None:
    assert np.array_equal(patches(CASES[name][0]), STORED)


def test_the_order_of_a_png_is_code_points_profile_srgb_then_gamma() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with_profile = encode(strip(), "PNG", icc_profile=swapped_primaries())
    everything = (cicp(12, 13), (b"sRGB", b"\0"), gama(1.0))
    assert decode(with_chunks(with_profile, *everything)).header.colour == "cicp"
    assert decode(with_chunks(with_profile, *everything[1:])).header.colour == "icc"
    assert decode(png(*everything[1:])).header.colour == "srgb"
    assert np.array_equal(patches(png(*everything[1:])), STORED)
    assert np.abs(patches(with_chunks(encode(strip(), "PNG", icc_profile=profile), gama(1.0))) - STORED).max() <= 1


@pytest.mark.parametrize("useless", [(b"cICP", b"\x63\x63\0\1"), (b"cICP", b"\x0c\x0d\1\1"), (b"cICP", b"\x0c")])
def test_code_points_that_name_nothing_give_way_to_the_next_description(useless: tuple[bytes, bytes]) -> None:
    assert np.array_equal(patches(png(useless, gama(1.0))), patches(png(gama(1.0))))


def test_a_broken_profile_gives_way_to_the_next_description() -> None:
    data = with_chunks(encode(strip(), "PNG", icc_profile=b"no profile at all"), gama(1.0))
    assert np.array_equal(patches(data), patches(png(gama(1.0))))
    assert (decode(data).header.colour, decode(data).header.icc) == ("gamma", True)


@pytest.mark.parametrize("chunk", [gama(0.0), chrm((0.0,) * 8), chrm((0.3,) * 8), chrm((*D65, 1, 0, 0, 1, 0, 0))])
def test_impossible_numbers_describe_nothing(chunk: tuple[bytes, bytes]) -> None:
    assert np.array_equal(patches(png(chunk)), STORED)


def test_colour_behind_the_pixels_or_with_a_wrong_checksum_does_not_count() -> None:
    plain = encode(strip(), "PNG")
    assert np.array_equal(patches(with_chunks(plain, gama(1.0), behind=True)), STORED)


def test_a_narrow_range_is_widened() -> None:
    narrow = np.rint(16 + STORED * 219 / 255)
    assert np.abs(patches(png(cicp(1, 13, full=0), stored=narrow)) - STORED).max() <= 1


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_pq_and_hlg_are_refused_as_hdr(transfer: int, name: str) -> None:
    profile = bytearray(profile_of((*D65, 0.7, 0.3, 0.2, 0.7, 0.1, 0.1), (SRGB,), "RGB") or b"")
    profile[132:144] = struct.pack(">4sII", b"cicp", len(profile), 12)  # in place of the white point
    profile += b"cicp\0\0\0\0" + bytes((9, transfer, 0, 1))
    profile[:4] = struct.pack(">I", len(profile))
    files = (
        png(cicp(9, transfer)),
        avif(9, transfer),
        jp2(struct.pack(">BBBHHHB", 5, 0, 0, 9, transfer, 0, 0x80)),
        encode(strip(), "JPEG", icc_profile=bytes(profile)),
    )
    for data in files:
        for read in (decode, read_header):
            with pytest.raises(Unreadable, match=name) as caught:
                read(data)
            assert caught.value.reason == "hdr"
            assert caught.value.header is not None
        with pytest.raises(RefusedPixels, match=name):
            open_rgb(data)


@pytest.mark.parametrize("method", [2, 3])
def test_the_profile_of_a_jp2_is_applied(method: int) -> None:
    data = jp2(bytes((method, 0, 0)) + swapped_primaries())
    by_png = patches(encode(strip(), "PNG", icc_profile=swapped_primaries()))
    assert np.abs(patches(data) - by_png).max() <= 1
    assert (decode(data).header.colour, decode(data).header.icc) == ("icc", True)


def test_inks_of_a_jp2_are_no_colour_with_alpha() -> None:
    cmyk = strip().convert("CMYK")
    data = jp2(b"\2\0\0" + inks(), Image.merge("RGBA", cmyk.split()))
    by_tiff = patches(encode(cmyk, "TIFF", icc_profile=inks()))
    assert np.abs(patches(data) - by_tiff).max() <= 1
    assert np.ptp(by_tiff) > 50 and (decode(data).alpha, decode(data).header.colour) == (None, "icc")


def test_sycc_of_a_jp2_is_colour() -> None:
    stored = Image.merge("RGB", strip().convert("YCbCr").split())
    assert np.abs(patches(jp2(struct.pack(">BBBI", 1, 0, 0, 18), stored)) - STORED).max() <= 2


def test_romm_rgb_of_a_jp2_is_wider_than_srgb() -> None:
    seen = patches(jp2(struct.pack(">BBBI", 1, 0, 0, 21)))
    grey = STORED[3, 0] / 255
    expected = 255 * (1.055 * (grey**1.8) ** (1 / 2.4) - 0.055)
    assert np.abs(seen[3] - expected).max() <= 2
    assert seen[0][0] > STORED[0][0] + 20 and seen[1][0] == 0


def test_a_colour_space_of_jpeg_2000_that_is_not_known_is_unsupported() -> None:
    with pytest.raises(Unreadable, match="enumerated colour space 14") as caught:
        decode(jp2(struct.pack(">BBBI", 1, 0, 0, 14)))
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_colour_tags_of_a_tiff(mode: str) -> None:
    table = tuple(round(65535 * (level / 255) ** 1.8) for level in range(256))
    grey = np.array([[level] * 3 for level in (10, 60, 120, 180, 220, 250)])
    stored = STORED if mode == "RGB" else grey
    data = encode(strip(stored).convert(mode), "TIFF", tiffinfo={301: table * (3 if mode == "RGB" else 1)})
    assert np.abs(patches(data) - seen_in_srgb(stored, BT709, power(1.8))).max() <= 2
    primaries = encode(strip(), "TIFF", tiffinfo={318: D65, 319: P3[2:]})
    assert np.abs(patches(primaries) - seen_in_srgb(STORED, P3, srgb)).max() <= 2
    assert decode(data).header.colour == decode(primaries).header.colour == "tags"


def test_the_colours_of_a_tiff_in_lab() -> None:
    lab = ImageCms.profileToProfile(
        strip(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    assert np.abs(patches(encode(lab, "TIFF")) - STORED).max() <= 4


@pytest.mark.parametrize("chunk", [gama(1.0), cicp(1, 8)])
@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "P", "RGBA"])
def test_a_curve_applies_to_every_kind_of_png(chunk: tuple[bytes, bytes], mode: str) -> None:
    grey = np.full((8, 8), 64, np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    seen = open_rgb(with_chunks(encode(image, "PNG"), chunk))
    assert seen.getpixel((4, 4)) == pytest.approx((137,) * 3, abs=1)  # 64 / 255 = 0.251 of light


def test_a_profile_of_a_bmp_is_applied() -> None:
    icc, image = swapped_primaries(), quadrants()
    pixels = encode(image, "BMP")[54:]
    head = struct.pack("<IiiHHIIiiII", 124, 64, 32, 1, 24, 0, len(pixels), 2835, 2835, 0, 0) + bytes(16) + b"DEBM"
    head += bytes(48) + struct.pack("<IIII", 4, 124 + len(pixels), len(icc), 0)
    data = b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(icc), 0, 0, 138) + head + pixels + icc
    assert np.abs(np.asarray(open_rgb(data), int)[3, 3] - (0, 255, 0)).max() <= 4


def test_a_grey_profile_applies_to_16_bits_with_and_without_alpha() -> None:
    ramp = np.linspace(0, 65535, 33).round().astype(np.uint16)[None].repeat(4, axis=0)
    light = np.linspace(0, 1, 33)
    expected = np.rint(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))
    for image_format in ("PNG", "TIFF"):
        data = encode(Image.fromarray(ramp), image_format, icc_profile=linear_grey())
        assert np.abs(np.asarray(open_rgb(data), int)[0, :, 0] - expected).max() <= 1


def test_a_picture_that_says_nothing_is_not_touched() -> None:
    picture = photo("chelsea.png")
    data = encode(Image.fromarray(np.asarray(picture)), "PNG")
    assert decode(data).header.colour is None
    assert open_rgb(data).tobytes() == picture.tobytes()


FLOATS = st.lists(st.floats(0, 1), min_size=1, max_size=9).map(tuple)


@pytest.mark.slow
@given(
    st.dictionaries(st.sampled_from([318, 319, 340, 341]), FLOATS),
    st.lists(st.integers(0, 65535), min_size=1, max_size=20).map(tuple),
)
@settings(max_examples=100, deadline=None)
def test_no_tag_about_colours_costs_the_pixels_of_a_tiff(tags: dict[int, Any], curve: tuple[int, ...]) -> None:
    assert open_rgb(encode(strip(), "TIFF", tiffinfo=tags | {301: curve})).size == strip().size


def gif_with(profile: bytes, image: Image.Image, *before: bytes) -> bytes:
    """A GIF with a profile in an application extension, in sub-blocks, behind other extensions."""
    data = encode(image, "GIF")
    palette = 13 + 3 * (2 << (data[10] & 7))
    blocks = b"".join(
        bytes([len(part)]) + part for at in range(0, len(profile), 255) if (part := profile[at : at + 255])
    )
    extension = b"!\xff\x0bICCRGBG1012" + blocks + b"\0"
    return data[:palette] + b"".join(before) + extension + data[palette:]


def test_the_profile_of_a_gif_is_applied() -> None:
    image = Image.fromarray(STORED.astype(np.uint8)[None]).resize((48, 8), Image.Resampling.NEAREST).quantize(8)
    comment, loop = b"!\xfe\x03abc\0", b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    profile = profile_of(P3, (SRGB,), "RGB")
    assert profile is not None
    reference = encode(image.convert("RGB"), "PNG", icc_profile=profile)
    for before in ((), (comment,), (loop, comment)):
        decoded = decode(gif_with(profile, image, *before))
        assert (decoded.header.icc, decoded.header.colour) == (True, "icc")
        assert np.abs(np.subtract(decoded.image, decode(reference).image, dtype=np.int16)).max() <= 1


def test_the_profile_of_a_gif_of_greys_is_applied() -> None:
    grey = Image.linear_gradient("L").resize((64, 64))
    profile = profile_of(BT709, ((1.0, 1.0, 0.0, 0.0, 0.0),), "RGB")
    assert profile is not None
    reference = decode(encode(grey.convert("RGB"), "PNG", icc_profile=profile)).image
    assert np.abs(np.subtract(decode(gif_with(profile, grey)).image, reference, dtype=np.int16)).max() <= 1


def test_a_broken_profile_of_a_gif_is_as_good_as_none() -> None:
    image = quadrants().quantize(8)
    for data in (gif_with(b"no profile", image), gif_with(b"", image)):
        assert decode(data).image.tobytes() == decode(encode(image, "GIF")).image.tobytes()
    assert decode(gif_with(b"", image)).header.colour is None


def test_an_avif_without_a_colour_box_is_srgb() -> None:
    """ISO/IEC 23000-22 (MIAF), 7.3.6.4."""
    data = encode(quadrants(), "AVIF", quality=95)
    decoded = decode(data.replace(b"colrnclx", b"freenclx"))
    assert decoded.header.colour is None
    assert decoded.image.tobytes() == decode(data).image.tobytes()
