"""What a file is by its first bytes, for the error line of one that is not what its name says."""

import re

ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""the pickle of torch's magic number, with which every non-zip file of torch.save begins"""

BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "it is a git-lfs pointer, not the file itself (`git lfs pull` gets it)",
    ),
    (ZIP, "it is a zip archive, as torch.save writes: its name would end in .pt"),
    (b"PK", "it is a damaged or empty zip archive"),
    (LEGACY, "it is a file of torch.save: its name would end in .pt"),
    (b"\x1f\x8b", "it is compressed with gzip: unpack it first"),
    (b"BZh", "it is compressed with bzip2: unpack it first"),
    (b"\xfd7zXZ", "it is compressed with xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: unpack it first"),
    (b"7z\xbc\xaf", "it is a 7-Zip archive: unpack it first"),
    (b"Rar!", "it is a RAR archive: unpack it first"),
    (b"\x93NUMPY", "it is a NumPy array (.npy)"),
    (b"GGUF", "it is a GGUF file"),
    (b"\x89HDF", "it is an HDF5 file (Keras or others)"),
    (b"\x89PNG", "it is a PNG image"),
    (b"\xff\xd8\xff", "it is a JPEG image"),
    (b"%PDF", "it is a PDF document"),
    (b"\x7fELF", "it is a program (ELF)"),
    (b"MZ", "it is a program (Windows)"),
    (b"#!", "it is a script"),
)


def described(data: bytes | memoryview) -> str:
    """What a file that begins with ``data`` seems to be; the first KiB is enough."""
    head = bytes(data[:1024])
    for beginning, words in BEGINNINGS:
        if head.startswith(beginning):
            return words
    if head[257:262] == b"ustar":
        return "it is a tar archive (torch.save before version 0.1.10, or others)"
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|head|body|error)", head, re.I):
        return "it is an HTML or XML page, as of a failed download"
    if head[4:8] == b"TFL3":
        return "it is a TensorFlow Lite model"
    if head[:1] == b"\x08" and (b"onnx" in head or b"pytorch" in head or b"ir_version" in head):
        return "it is an ONNX model"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "it is a safetensors file: its name would end in .safetensors"
    if head[:1] == b"\x80":
        return "it is a bare pickle, not a file of torch.save"
    if not head.strip(b"\0"):
        return "it holds zeros" if head else "it is empty"
    if re.match(rb"\s*[{\[]", head):
        return "it is JSON or other text"
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head):
        return "it is text"
    return "it is of no format that qwd knows, or damaged"
