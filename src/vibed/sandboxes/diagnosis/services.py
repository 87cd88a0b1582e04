"""Other machines and servers that an app called: databases that are not there, hosts that cannot be reached."""

from __future__ import annotations

import re

from vibed.sandboxes.diagnosis.about import About, Cause
from vibed.sandboxes.diagnosis.fault import Fault
from vibed.sandboxes.diagnosis.variables import listed

_PORTS = {
    5432: "PostgreSQL",
    3306: "MySQL",
    1433: "SQL Server",
    1521: "Oracle",
    6379: "Redis",
    27017: "MongoDB",
    5672: "RabbitMQ",
    9092: "Kafka",
    9200: "Elasticsearch",
    11211: "memcached",
    11434: "Ollama",
    2379: "etcd",
    8086: "InfluxDB",
    8123: "ClickHouse",
    4222: "NATS",
    19530: "Milvus",
    6333: "Qdrant",
}
_NAMES = {
    "postgres": "PostgreSQL",
    "postgresql": "PostgreSQL",
    "pg": "PostgreSQL",
    "mysql": "MySQL",
    "mariadb": "MySQL",
    "redis": "Redis",
    "mongo": "MongoDB",
    "mongodb": "MongoDB",
    "mongoose": "MongoDB",
    "mongoosemodule": "MongoDB",
    "rabbitmq": "RabbitMQ",
    "kafka": "Kafka",
    "elasticsearch": "Elasticsearch",
    "memcached": "memcached",
    "ollama": "Ollama",
    "db": "a database server",
    "database": "a database server",
}
_REFUSED = re.compile(
    r"ECONNREFUSED|[Cc]onnection refused|actively refused|Can't connect to (?:local )?(?:MySQL|server)"
    r"|dial unix \S*/\.s\.PGSQL\.\d+: connect: no such file"
    r"|Can't reach database server|[Uu]nable to connect to (?:the|your) database"
)
_PORT = re.compile(
    r"(?::|port[=: ]+|, ?|\()(5432|3306|1433|1521|6379|27017|5672|9092|9200|11211|11434|2379|8086|8123"
    r"|4222|19530|6333)\b"
)
_SPOKEN = re.compile(
    r"\b(postgres(?:ql)?|psycopg2?|mysql|pymysql|redis|mongo(?:db|ose(?:Module)?)?|pymongo|rabbitmq|amqp|ollama)\b",
    re.I,
)
_SOCKET = re.compile(r"/var/run/(postgresql|mysqld)/|/tmp/(mysql)\.sock|/\.s\.(PGSQL)\.")
_NO_NETWORK = re.compile(
    r"Temporary failure in name resolution|Name or service not known|nodename nor servname|Failed to resolve"
    r"|getaddrinfo (?:ENOTFOUND|EAI_AGAIN)|Network is unreachable|[Nn]etwork unreachable|ENETUNREACH|EHOSTUNREACH"
    r"|dial tcp: lookup|lookup \S+ on \S+: |[Cc]ould not resolve host|could not translate host name"
    r"|No address associated with hostname|dial tcp \S+: connect: network is unreachable"
)
_HOST = re.compile(
    r"(?:Failed to resolve '|Cannot connect to host |ENOTFOUND |EAI_AGAIN |lookup |resolve host(?: name)?:? ?\"?|host='"
    r"|host name \"|hostname: '|connecting to |https?://)((?:[\w-]+\.)*[\w-]+)",
    re.IGNORECASE,
)
_NO_ADDRESS = re.compile(
    r"dial tcp (?:\[::\]|0\.0\.0\.0)?:0: |ENOTFOUND undefined|host(?: ?name)?:? [\"']?(?:undefined|None|null)\b"
)
"""An address that was made of what is not there."""
_ADDRESS = re.compile(r"HOST|PORT|URL|URI|ADDR|SERVER|DSN")
_OWN_NAME = re.compile(r"gethostbyname\(\s*(?:socket\.)?gethostname|lookup\(os\.hostname|getfqdn")
_OFFLINE = "let it start without the answer (catch the error), or do without the call: trying again does not help"
_USE = {
    "Redis": "keep what it held in memory or in SQLite",
    "memcached": "keep what it held in memory",
    "Ollama": "apps cannot run a model server beside them, nor call one",
}


def unreachable(fault: Fault, about: About) -> Cause | None:
    """The cause, when the error is about something on the network."""
    text = "\n".join((*fault.context, fault.text))
    if _NO_ADDRESS.search(fault.text) and about.unset:
        told = [name for name in about.unset if _ADDRESS.search(name)] or about.unset
        return Cause(
            f"needs a server whose address it reads from {listed(told[:5])}, which it was not given, and no server runs"
            " beside an app or can be reached from it",
            "use SQLite, in a file of the app's own, where it is a database, or do without",
        )
    if _REFUSED.search(text) and (service := _service(text)):
        return _no_server(service)
    if not _NO_NETWORK.search(text):
        if _REFUSED.search(fault.text):
            return Cause(
                "called a port of its own machine on which nothing listens",
                "nothing but the app itself runs in its sandbox: start what it calls from the app, or do without",
            )
        return None
    if _OWN_NAME.search("\n".join(fault.context)):
        return Cause("looked up its machine's own name", "use localhost or 127.0.0.1 in its place")
    host = next((str(m[1]) for m in _HOST.finditer(fault.text + "\n" + text) if not _is_address(m[1])), "")
    if host.lower() in _NAMES:
        return _no_server(_NAMES[host.lower()])
    if "." not in host and (port := _PORT.search(fault.text)):
        return _no_server(_PORTS[int(port[1])])
    called = f"called {host}" if "." in host else "called another machine"
    return Cause(f"{called} when it started, and apps have no network here", _OFFLINE, complete=True)


def _service(text: str) -> str:
    if match := _PORT.search(text):
        return _PORTS[int(match[1])]
    if match := _SOCKET.search(text):
        return "PostgreSQL" if match[1] == "postgresql" or match[3] else "MySQL"
    if match := _SPOKEN.search(text):
        word = match[1].lower().removeprefix("py").replace("psycopg2", "postgres").replace("psycopg", "postgres")
        return _NAMES.get(word.replace("amqp", "rabbitmq"), "a database server")
    return "a database server" if re.search(r"database server|to (?:the|your) database", text) else ""


def _no_server(service: str) -> Cause:
    use = _USE.get(service, "use SQLite, in a file of the app's own")
    return Cause(f"needs {service}, and no such server runs beside an app or can be reached from it", use)


def _is_address(host: str) -> bool:
    return bool(re.fullmatch(r"[\d.]+", host)) or host.lower() in ("name", "host", "the")
