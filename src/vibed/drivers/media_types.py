"""The media type of a file by its extension: a table of ours, since that of the host is another on every machine.

Caddy, the site server and the workers' shim all answer by it. An unknown extension is `UNKNOWN`, never a guess from the
content: sites are served with nosniff.
"""

from __future__ import annotations

UNKNOWN = "application/octet-stream"

_TEXT = {
    "text/html": "html htm",
    "text/css": "css",
    # what browsers ask of a script and of a module (HTML Standard); .ts is one that a page loads, never MPEG's
    "text/javascript": "js mjs cjs ts mts jsx tsx",
    "text/plain": "txt text log ini conf toml rst asc srt sql sh py rb go c h cpp java rs diff patch",
    "text/markdown": "md markdown",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "text/calendar": "ics",
    "text/vcard": "vcf",
    "text/vtt": "vtt",
    "text/yaml": "yaml yml",
    "text/cache-manifest": "appcache",
    "text/x-component": "htc",
}
"""Served as UTF-8."""

_OTHER = {
    "application/json": "json map topojson har ipynb importmap",
    "application/ld+json": "jsonld",
    "application/geo+json": "geojson",
    "application/jsonl": "jsonl ndjson",
    "application/manifest+json": "webmanifest",
    "application/xml": "xml xsl xsd",
    "application/xhtml+xml": "xhtml xht",
    "application/rss+xml": "rss",
    "application/atom+xml": "atom",
    "application/gpx+xml": "gpx",
    "application/vnd.google-earth.kml+xml": "kml",
    "application/wasm": "wasm",
    "application/pdf": "pdf",
    "application/rtf": "rtf",
    "application/epub+zip": "epub",
    "application/zip": "zip",
    "application/gzip": "gz tgz",
    "application/x-tar": "tar",
    "application/x-bzip2": "bz2",
    "application/x-xz": "xz",
    "application/zstd": "zst",
    "application/x-7z-compressed": "7z",
    "application/vnd.sqlite3": "sqlite sqlite3 db",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.apache.arrow.file": "arrow feather",
    "application/vnd.pmtiles": "pmtiles",
    "application/vnd.mapbox-vector-tile": "mvt",
    "application/x-protobuf": "pbf",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.ms-fontobject": "eot",
    "application/vnd.apple.mpegurl": "m3u8",
    "application/dash+xml": "mpd",
    "application/vnd.android.package-archive": "apk",
    "application/java-archive": "jar",
    "application/postscript": "ps eps ai",
    "font/woff": "woff",
    "font/woff2": "woff2",
    "font/ttf": "ttf",
    "font/otf": "otf",
    "font/collection": "ttc",
    "image/svg+xml": "svg svgz",
    "image/png": "png",
    "image/apng": "apng",
    "image/jpeg": "jpg jpeg jfif",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/heic": "heic",
    "image/jxl": "jxl",
    "image/bmp": "bmp",
    "image/tiff": "tif tiff",
    "image/x-icon": "ico cur",
    "image/vnd.radiance": "hdr",
    "image/ktx2": "ktx2",
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "audio/aac": "aac",
    "audio/wav": "wav",
    "audio/ogg": "ogg oga opus",
    "audio/flac": "flac",
    "audio/webm": "weba",
    "audio/midi": "mid midi",
    "video/mp4": "mp4 m4v",
    "video/webm": "webm",
    "video/ogg": "ogv",
    "video/quicktime": "mov",
    "video/x-msvideo": "avi",
    "video/x-matroska": "mkv",
    "model/gltf-binary": "glb",
    "model/gltf+json": "gltf",
    "model/obj": "obj",
    "model/mtl": "mtl",
    "model/stl": "stl",
    "model/vnd.usdz+zip": "usdz",
}

TYPES: dict[str, str] = {
    **{ending: f"{kind}; charset=utf-8" for kind, endings in _TEXT.items() for ending in endings.split()},
    **{ending: kind for kind, endings in _OTHER.items() for ending in endings.split()},
}
"""By extension, in small letters and without its dot."""


def media_type(path: str) -> str:
    """The type of the file at `path`."""
    name = path.rpartition("/")[2]
    return TYPES.get(name.rpartition(".")[2].lower(), UNKNOWN) if "." in name else UNKNOWN
