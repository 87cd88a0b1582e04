#!/usr/bin/env bash
# joserfc 1.8.0: one key whose curve it does not know loses the whole JWKS, with a KeyError.
# RFC 7517, section 5: implementations SHOULD ignore JWKs within a set that use values they do not support. A provider that
# adds a key of a new kind would lock everybody out. For vibeD, when identity providers come: their keys are imported one by one.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
python3 -m venv v && v/bin/pip install --quiet joserfc==1.8.0
cat > finding.py <<'PYTHON'
import base64

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey, KeySet

known = ECKey.generate_key("P-256").as_dict(private=False)
# a valid public key on a curve that others use in JWKs (Germany's health cards), and this library does not have
point = ec.generate_private_key(ec.BrainpoolP256R1()).public_key().public_numbers()
x, y = (base64.urlsafe_b64encode(n.to_bytes(32, "big")).decode().rstrip("=") for n in (point.x, point.y))
other = {"kty": "EC", "crv": "BP-256", "kid": "other", "x": x, "y": y}
try:
    keys = KeySet.import_key_set({"keys": [known, other]}).keys
    print(f"the set has {len(keys)} key(s)")
except KeyError as error:
    print(f"the whole set is refused: KeyError: {error}")
    raise SystemExit(0)
raise SystemExit(1)
PYTHON
echo "joserfc 1.8.0, a set of one P-256 key and one of an unknown curve; expected: a set of one key"
v/bin/python finding.py
