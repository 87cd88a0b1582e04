"""Distributions of Python packages: the names that they are imported by, which bring the same, and which an app does
not need or does not notice in another version."""

from __future__ import annotations

DISTRIBUTIONS = {
    "PIL": "pillow", "cv2": "opencv-python", "sklearn": "scikit-learn", "skimage": "scikit-image", "yaml": "pyyaml",
    "bs4": "beautifulsoup4", "dotenv": "python-dotenv", "dateutil": "python-dateutil", "jwt": "pyjwt",
    "jose": "python-jose", "flask_cors": "flask-cors", "flask_sqlalchemy": "flask-sqlalchemy",
    "flask_login": "flask-login", "flask_wtf": "flask-wtf", "flask_socketio": "flask-socketio",
    "socketio": "python-socketio", "engineio": "python-engineio", "wtforms": "wtforms",
    "multipart": "python-multipart", "python_multipart": "python-multipart", "docx": "python-docx",
    "pptx": "python-pptx", "fitz": "pymupdf", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient",
    "serial": "pyserial", "usb": "pyusb", "Crypto": "pycryptodome", "OpenSSL": "pyopenssl",
    "google.generativeai": "google-generativeai", "google.genai": "google-genai", "google.cloud": "google-cloud",
    "google.oauth2": "google-auth", "google.auth": "google-auth", "google.protobuf": "protobuf",
    "googleapiclient": "google-api-python-client", "azure.identity": "azure-identity",
    "azure.storage": "azure-storage-blob",
    "telegram": "python-telegram-bot", "telebot": "pytelegrambotapi", "discord": "discord-py",
    "slack_bolt": "slack-bolt", "rest_framework": "djangorestframework", "corsheaders": "django-cors-headers",
    "environ": "django-environ", "decouple": "python-decouple", "magic": "python-magic", "slugify": "python-slugify",
    "markdown2": "markdown2", "fasthtml": "python-fasthtml", "pydantic_settings": "pydantic-settings",
    "sse_starlette": "sse-starlette", "attr": "attrs", "pkg_resources": "setuptools", "git": "gitpython",
    "github": "pygithub", "ruamel": "ruamel-yaml", "win32api": "pywin32", "win32com": "pywin32",
    "barcode": "python-barcode", "kafka": "kafka-python", "nacl": "pynacl", "email_validator": "email-validator",
    "xlsxwriter": "xlsxwriter", "web": "web-py", "gi": "pygobject", "wx": "wxpython", "fpdf": "fpdf2",
    "mpl_toolkits": "matplotlib", "pylab": "matplotlib", "bson": "pymongo", "gridfs": "pymongo", "playhouse": "peewee",
    "mysql": "mysql-connector-python", "cassandra": "cassandra-driver", "pdfminer": "pdfminer-six", "odf": "odfpy",
    "tabula": "tabula-py", "camelot": "camelot-py", "markdown_it": "markdown-it-py",
    "frontmatter": "python-frontmatter", "websocket": "websocket-client", "paho": "paho-mqtt", "zmq": "pyzmq",
    "socks": "pysocks", "dns": "dnspython", "argon2": "argon2-cffi", "Cryptodome": "pycryptodomex",
    "ldap": "python-ldap", "speech_recognition": "speechrecognition", "whisper": "openai-whisper",
    "faiss": "faiss-cpu", "imblearn": "imbalanced-learn", "umap": "umap-learn", "Bio": "biopython", "talib": "ta-lib",
    "st_aggrid": "streamlit-aggrid", "flask_security": "flask-security-too",
    "strawberry": "strawberry-graphql", "tortoise": "tortoise-orm", "ninja": "django-ninja",
    "allauth": "django-allauth", "crispy_forms": "django-crispy-forms", "django_filters": "django-filter",
    "debug_toolbar": "django-debug-toolbar", "storages": "django-storages", "import_export": "django-import-export",
    "widget_tweaks": "django-widget-tweaks", "taggit": "django-taggit", "simple_history": "django-simple-history",
    "rest_framework_simplejwt": "djangorestframework-simplejwt", "binance": "python-binance",
    "newsapi": "newsapi-python", "gitlab": "python-gitlab", "pyrebase": "pyrebase4", "nmap": "python-nmap",
    "whois": "python-whois", "sseclient": "sseclient-py", "ulid": "python-ulid", "Levenshtein": "levenshtein",
    "deepgram": "deepgram-sdk", "tavily": "tavily-python",
}  # fmt: skip
"""Names to import whose distribution has another name."""

NAMESPACES = frozenset({"google", "azure"})
"""Names to import that belong to many distributions, all called `NAME-…`."""

SAME = {
    "psycopg2": "psycopg2-binary", "psycopg-binary": "psycopg", "fpdf": "fpdf2", "bs4": "beautifulsoup4",
    "dotenv": "python-dotenv", "opencv-python-headless": "opencv-python", "opencv-contrib-python": "opencv-python",
    "pinecone-client": "pinecone", "python-levenshtein": "levenshtein",
}  # fmt: skip
"""Distributions that bring the same module as another: one name for both."""

ONCE_BROUGHT = frozenset({
    "pytz", "six", "requests", "numpy", "setuptools", "python-dateutil", "typing-extensions", "pillow", "certifi",
    "importlib-metadata", "jinja2", "markupsafe", "werkzeug", "itsdangerous", "packaging", "attrs", "toml",
    "sqlalchemy", "httpx",
})  # fmt: skip
"""Distributions that others bring along, or brought in older versions: apps import them and list only those."""

NOT_NEEDED = frozenset(
    {
        "pip", "setuptools", "wheel", "build", "twine", "tox", "nox", "pytest", "pytest-cov", "pytest-asyncio",
        "pytest-mock", "coverage", "black", "ruff", "flake8", "isort", "pylint", "mypy", "pre-commit", "autopep8",
        "bandit", "pyright", "ipykernel", "ipython", "jupyter", "jupyterlab", "notebook", "ipdb", "pip-tools",
        "virtualenv", "pipenv", "poetry", "pywin32", "pypiwin32", "pywin32-ctypes", "pywinpty", "comtypes", "wmi",
        "appnope", "pyobjc", "pyreadline3", "types-requests", "watchdog", "colorama", "honcho", "python",
    }
)  # fmt: skip
"""Tools for writing an app, and what only Windows or macOS has: not needed unless the app imports them."""

UNNOTICED = {
    "flask": 2, "werkzeug": 2, "markupsafe": 1, "itsdangerous": 1, "gunicorn": 19, "pillow": 8, "certifi": 0,
    "attrs": 0, "packaging": 20, "charset-normalizer": 2, "pyyaml": 5, "blinker": 1, "zipp": 1,
    "importlib-metadata": 3, "pytz": 0, "tzdata": 0, "anyio": 3, "idna": 2, "async-timeout": 3, "cachetools": 4,
    "urllib3": 1, "websockets": 9, "markdown": 3, "python-dotenv": 0, "h11": 0, "flask-cors": 3, "flask-login": 0,
    "flask-wtf": 0, "flask-sqlalchemy": 3, "whitenoise": 5, "asgiref": 3, "pyjwt": 2, "email-validator": 1,
    "qrcode": 6, "setuptools": 0, "openpyxl": 2, "reportlab": 3, "plotly": 4, "xlsxwriter": 1, "tornado": 6,
    "cffi": 1, "pycparser": 2, "wrapt": 1, "tenacity": 7, "rich": 10, "protobuf": 4, "fsspec": 0, "soupsieve": 2,
    "multidict": 4, "frozenlist": 1, "greenlet": 1, "pyparsing": 2, "contourpy": 1, "fonttools": 4, "narwhals": 1,
    "pyarrow": 12, "toml": 0, "gitpython": 3, "gitdb": 4, "smmap": 4, "referencing": 0, "jsonschema": 4, "rpds-py": 0,
    "altair": 4, "blobfile": 1, "typing-extensions": 4, "httptools": 0, "watchfiles": 0, "uvloop": 0, "dnspython": 2,
    "six": 1, "aiosignal": 1, "aiohappyeyeballs": 2, "propcache": 0, "yarl": 1,
}  # fmt: skip
"""Packages whose major version small apps do not notice, from the one given here on."""

EXTRAS = {
    ("uvicorn", "standard"): ("httptools", "uvloop", "watchfiles", "websockets", "python-dotenv", "pyyaml"),
    ("flask", "dotenv"): ("python-dotenv",), ("flask", "async"): ("asgiref",), ("django", "bcrypt"): ("bcrypt",),
    ("sqlalchemy", "asyncio"): ("greenlet",), ("sqlalchemy", "aiosqlite"): ("aiosqlite",), ("httpx", "http2"): ("h2",),
    ("pydantic", "email"): ("email-validator",), ("qrcode", "pil"): ("pillow",), ("pandas", "excel"): ("openpyxl",),
    ("passlib", "bcrypt"): ("bcrypt",), ("passlib", "argon2"): ("argon2-cffi",), ("requests", "socks"): ("pysocks",),
    ("pyjwt", "crypto"): ("cryptography",), ("gunicorn", "gevent"): ("gevent",), ("httpx", "socks"): ("socksio",),
}  # fmt: skip
"""What extras bring, for those that a template may have without saying so; others are found out by installing."""

SERVERS = frozenset(
    {
        "gunicorn",
        "uvicorn",
        "hypercorn",
        "daphne",
        "waitress",
        "granian",
        "gevent",
        "eventlet",
        "streamlit",
        "uvicorn-worker",
    }
)  # fmt: skip
"""Distributions that a command names by the name of their program, of a worker's class, or of a module."""
