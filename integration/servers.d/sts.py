"""moto as AWS for a web identity: `sts.py PORT DIRECTORY` serves STS and S3 over TLS, and checks who asks.

Each request has to be signed, with credentials that STS has given for the role `reader`, or for `stranger`, which may
do nothing. The bucket `audited` has one object. DIRECTORY gets `certificate.pem`, which clients are to trust, and
`ready` once all of that is there.
"""

import datetime
import io
import ipaddress
import json
import pathlib
import sys
import threading

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto import settings
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

port, directory = int(sys.argv[1]), pathlib.Path(sys.argv[2])
moto = DomainDispatcherApplication(create_backend_app)
turn = threading.Lock()
FIRST_SIGNED = {"setup": float("inf"), "serving": 0.0}
stage = "setup"


def aws(environ, start_response):
    # AWS takes the parameters of STS from the query or the body, and for this action no signature. moto looks for them
    # in the body only, and for a signature of every request.
    exchange = environ["QUERY_STRING"].startswith("Action=AssumeRoleWithWebIdentity&")
    if exchange:
        body = environ["QUERY_STRING"].encode()
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
        environ["CONTENT_TYPE"], environ["QUERY_STRING"] = "application/x-www-form-urlencoded", ""
    with turn:
        settings.INITIAL_NO_AUTH_ACTION_COUNT = FIRST_SIGNED["setup" if exchange else stage]
        return list(moto(environ, start_response))


def make_certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sts of a test")])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    certificate = certificate.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
    certificate = certificate.add_extension(address, critical=False).sign(key, hashes.SHA256())
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def set_up():
    at = {"endpoint_url": f"https://127.0.0.1:{port}", "verify": str(directory / "certificate.pem"), "region_name": "us-east-1"}
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    iam, s3 = (boto3.client(service, **at, **keys) for service in ("iam", "s3"))
    allow = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
    for role in "reader", "stranger":
        iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    iam.put_role_policy(RoleName="reader", PolicyName="read", PolicyDocument=policy)
    s3.create_bucket(Bucket="audited")
    s3.put_object(Bucket="audited", Key="x/broken", Body=b"{")


make_certificate()
files = tuple(str(directory / name) for name in ("certificate.pem", "key.pem"))
server = make_server("127.0.0.1", port, aws, threaded=True, ssl_context=files)
serving = threading.Thread(target=server.serve_forever)
serving.start()
set_up()
stage = "serving"
(directory / "ready").touch()
serving.join()
