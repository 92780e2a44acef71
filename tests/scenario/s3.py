#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# s3.py TYERD TYER TYER-BENCH: two services share chunks through a server of the S3 API (moto's, which checks the signatures and who may
# do what), each service in a network namespace of its own where that is allowed; TLS, names, chunks in pieces, a server that refuses us,
# goes away and comes back, and that holds other bytes. Exit 77 (skipped) where there is no moto_server (tools/install-deps --tests).
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request

from outside import free_port
from shared_store import Service, check, eventually, finish, folder, hits, namespaces, reaching, running, trace_of, tyerd

moto = os.environ.get("MOTO_SERVER") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "tyer/moto/bin/moto_server")
if not os.access(moto, os.X_OK):
    print(f"no moto_server at {moto}: PyPI could not be reached when the tests' tools were installed")
    sys.exit(77)


class Store:
    """A server with a bucket `kvc` and a user who may use it. Its first actions need no signature, and make that user."""

    def __init__(self, bind, *options, port=None, scheme="http"):
        self.bind, self.port, self.scheme, self.options = bind, port or free_port(), scheme, options
        self.url = f"{scheme}://{bind}:{self.port}"
        self.tls = ssl.create_default_context(cafile=f"{folder.name}/own.pem") if scheme == "https" else None
        # what is not signed: each user, its rights, its key; and the bucket
        environment = dict(os.environ, INITIAL_NO_AUTH_ACTION_COUNT="10")
        self.process = subprocess.Popen([moto, "-H", bind, "-p", str(self.port), *options], env=environment, stdout=subprocess.DEVNULL,
                                        stderr=open(f"{folder.name}/moto.log", "a"))
        running.append(self.process)
        check("the store answers", eventually(lambda: self.ask("GET", "/moto-api/") is not None), self.log())
        everything = self.user("tyer", {"Effect": "Allow", "Action": "s3:*", "Resource": "*"})
        self.id, self.secret = everything["AWS_ACCESS_KEY_ID"], everything["AWS_SECRET_ACCESS_KEY"]
        objects = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], "Resource": "*"}
        self.who_may_not_list = self.user("less", objects)
        self.who_may_just = self.user("some", objects, {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::kvc"})
        check("a bucket", self.ask("PUT", "/kvc") is not None)
        check("who is nobody is refused", self.ask("GET", "/kvc") is None)

    def user(self, name, *rights):
        """One who may do that, as the environment has it."""
        policy = json.dumps({"Version": "2012-10-17", "Statement": rights})
        self.iam("CreateUser", UserName=name)
        self.iam("PutUserPolicy", UserName=name, PolicyName="rights", PolicyDocument=policy)
        keys = self.iam("CreateAccessKey", UserName=name)
        return {f"AWS_{v}": re.search(f"<{n}>(.*?)</{n}>", keys).group(1) for n, v in
                (("AccessKeyId", "ACCESS_KEY_ID"), ("SecretAccessKey", "SECRET_ACCESS_KEY"))}

    def iam(self, action, **fields):
        data = urllib.parse.urlencode({"Action": action, "Version": "2010-05-08", **fields}).encode()
        return self.ask("POST", "/", data, service="iam").decode()

    def ask(self, method, path, data=None, service="s3"):
        """By the unsigned request that only its beginning allows, or that no moto_server checks."""
        request = urllib.request.Request(self.url + path, method=method, data=data, headers={
            "Authorization": f"AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"})
        try:
            return urllib.request.urlopen(request, timeout=30, context=self.tls).read()
        except OSError:
            return None

    def curl(self, *words):
        done = subprocess.run(["curl", "-s", "-f", *(["--cacert", f"{folder.name}/own.pem"] if self.tls else []), "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", f"{self.id}:{self.secret}", "-H",
                               "x-amz-content-sha256: UNSIGNED-PAYLOAD", *words], capture_output=True, timeout=60)
        return done.stdout if done.returncode == 0 else None

    def keys(self, prefix=""):
        quoted = urllib.parse.quote(prefix, safe="")
        page = (self.curl(f"{self.url}/kvc?list-type=2&max-keys=1000&prefix={quoted}") or b"").decode()
        return re.findall(r"<Key>([^<]*)</Key>", page)

    def environment(self):
        return {"AWS_ACCESS_KEY_ID": self.id, "AWS_SECRET_ACCESS_KEY": self.secret}

    def log(self):
        return open(f"{folder.name}/moto.log").read()[-1500:]

    def stop(self):
        self.process.kill()
        self.process.wait()


def refused(tier, words, environment):
    done = subprocess.run([tyerd, "--listen", f"ipc://{folder.name}/x.sock", "--device", "host", "--http", "off", "--l1-size", "64MiB",
                           "--tier", tier], capture_output=True, text=True, timeout=60, env=dict(os.environ, **environment))
    check(f"refused: {tier.replace(folder.name, '')}", done.returncode and words in done.stderr, done.stderr)
    check("no secret is told", not any(v in done.stderr for v in environment.values() if len(v) > 3), done.stderr)


def shared(store, inside):
    """One service computes and stores, the other finds all of it; then whatever may happen to what is in the store."""
    tier, me = f"s3:{store.url}/kvc,prefix=cache/{patient}", store.environment()
    first = reaching(tier, "does not answer", inside[0], me)
    before = hits(first.replay(trace))
    check("chunks go down", eventually(lambda: len(store.keys()) >= blocks), (len(store.keys()), blocks, first.read_log(), first.status(), store.log()))
    check("under their prefix", all(re.fullmatch(r"cache/[0-9a-f]{64}", k) for k in store.keys()))
    second = reaching(tier, "does not answer", inside[1], me)
    after = hits(second.replay(trace))
    check("the other finds all of them, the first did not", before < total == after, (before, after, total, second.status(), second.read_log()))
    check("no secret is told", store.secret not in first.read_log() + second.read_log())
    # what lies there alone is listed, and whose it is; DELETE and CLEAR reach it, by key, prefix and tenant, and nothing else
    first.tool("clear", "--in", "arena")
    stored = {key.removeprefix("cache/") for key in store.keys()}
    done = first.tool("list", "--in", "tiers", "--timeout", "60s")
    check("LIST", sorted(line.split()[0] for line in done.stdout.splitlines()) == sorted(stored) and done.stdout.count(' tenant="') == len(stored),
          (done, len(stored)))
    tenant, key = done.stdout.split('tenant="')[1].split('"')[0], sorted(stored)[0]
    with open(f"{folder.name}/other", "w") as f:
        f.write("not ours")
    for name in ("cache/README", f"cache/{key}.old", f"other/{key}"):
        store.curl("-T", f"{folder.name}/other", f"{store.url}/kvc/{name}")
    check("DELETE by key", first.tool("delete", "--key", key).stdout == "0 chunks, 0 bytes; 1 in the tiers\n" and f"cache/{key}" not in store.keys())
    stored -= {key}
    some = {k for k in stored if k[0] == sorted(stored)[0][0] and k[1] == sorted(stored)[0][1]}
    done = first.tool("delete", "--key-prefix", sorted(stored)[0][:2], "--timeout", "60s")
    check("DELETE by prefix", done.stdout == f"0 chunks, 0 bytes; {len(some)} in the tiers\n", (done, len(some)))
    done = first.tool("clear", "--tenant", "nobody", "--in", "tiers", "--timeout", "60s")
    check("CLEAR of nobody's", done.stdout == "0 chunks, 0 bytes\n", done)
    done = first.tool("clear", "--tenant", tenant, "--in", "tiers", "--timeout", "60s")
    check("CLEAR of a tenant", done.stdout == f"0 chunks, 0 bytes; {len(stored - some)} in the tiers\n", done)
    check("what is not ours stays", sorted(store.keys()) == sorted(("cache/README", f"cache/{key}.old", f"other/{key}")), store.keys())
    for name in store.keys():
        store.curl("-X", "DELETE", f"{store.url}/kvc/{name}")
    check("CLEAR", second.tool("clear").returncode == 0 and not store.keys(), len(store.keys()))
    second.stop()
    # other bytes, and too few of them
    first.replay(trace, 2)
    check("chunks go down", eventually(lambda: len(store.keys()) >= blocks), (len(store.keys()), blocks))
    first.stop()
    for i, key in enumerate(store.keys()):
        whole = store.curl(f"{store.url}/kvc/{key}")
        with open(f"{folder.name}/wrong", "wb") as f:
            f.write(whole[:-100] if i % 2 else whole[:5000] + b"?" + whole[5001:])
        store.curl("-T", f"{folder.name}/wrong", f"{store.url}/kvc/{key}")
    third = Service(tier, namespace=inside[0], environment=me)
    third.replay(trace, 2)
    log = third.read_log()
    check("damaged contents are a miss", "another checksum" in log and "bytes, expected" in log, log[-600:])
    third.stop()


def large(store, inside):
    """Chunks of 6 MiB go up in pieces of 5; the store goes away: prompts are computed, and STATUS says that it is down."""
    tier, me = f"s3:{store.url}/kvc,part-size=5MiB{patient}", store.environment()
    shape = ("--geometry", "llama-3.1-8b,layers=3", "--limit", "1")
    first = Service(tier, namespace=inside[0], environment=me)
    first.replay(trace, 1, *shape)
    number = len(json.loads(open(trace).readline())["hash_ids"])
    check("chunks in pieces go down", eventually(lambda: len(store.keys("tyer/")) >= number), (len(store.keys()), number, first.read_log()))
    first.stop()
    second = Service(f"{tier},write=never,retries=0", namespace=inside[1], environment=me)
    # one by one, and again where a LOOKUP would not wait for a slow store
    for key in store.keys("tyer/"):
        check("WARM", eventually(lambda: second.tool("warm", "--key", key.removeprefix("tyer/")).stdout.startswith("1 chunks")), second.read_log())
    again = hits(second.replay(trace, 1, *shape))
    check("they come up again", again == number, (again, number, second.read_log()))
    check("STATUS shows the tier", re.search(r"^0 +s3 +serving ", second.status(), re.M), second.status())
    store.stop()
    check("STATUS says that it is down", eventually(lambda: (second.replay(trace, 3), re.search(r"^0 +s3 +down ", second.status(), re.M))[1]),
          second.status())
    second.stop()


def tls():
    """The certificate is looked at, by the file that is named; a host by its name is looked up."""
    for name in ("own", "foe"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext",
                        "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", f"{folder.name}/{name}.key", "-out", f"{folder.name}/{name}.pem"],
                       check=True, capture_output=True)
    store = Store("localhost", "-s", "-c", f"{folder.name}/own.pem", "-k", f"{folder.name}/own.key", scheme="https")
    me, where = store.environment(), f"s3:https://localhost:{store.port}/kvc"
    refused(where, "certificate", me)
    refused(f"{where},ca-file={folder.name}/foe.pem", "certificate", me)
    service = Service(f"{where},ca-file={folder.name}/own.pem{patient}", environment=me)
    service.replay(trace)
    check("over TLS chunks go down", eventually(lambda: len(store.keys()) >= blocks), service.read_log())
    service.stop()
    store.stop()


def refusals(store):
    me = store.environment()
    wrong = dict(me, AWS_SECRET_ACCESS_KEY="x" * 40)
    where = f"s3:{store.url}/kvc"
    refused(where, "answers 403", wrong)
    refused(where, "answers 403", dict(wrong, AWS_ACCESS_KEY_ID="AKIANOBODY"))
    refused(where, "AccessDenied: expected the right s3:ListBucket", store.who_may_not_list)
    enough = Service(where + patient, environment=store.who_may_just)
    check("rights for objects and lists are enough", "the bucket answers" in enough.read_log(), enough.read_log())
    enough.stop()
    refused(f"s3:{store.url}/nothere", "answers 404, expected a bucket", me)
    refused("s3:http://no.such.host.invalid/kvc", "no.such.host.invalid", me)
    none = Service(f"s3:http://127.0.0.1:{free_port()}/kvc", environment=me)
    check("a silent store is said", "it does not answer" in none.read_log(), none.read_log())
    none.replay(trace)
    none.stop()


# a server in Python, on a machine that may have much to do
patient = ",connections=8,timeout=120s,stall=60s"
trace, blocks, total = trace_of(8, 3)
spaces = None
try:
    spaces = namespaces()
    print("network namespaces:", spaces)
    inside, bind = (spaces[0], "10.231.77.1") if spaces else ((None, None), "127.0.0.1")
    store = Store(bind)
    shared(store, inside)
    refusals(store)
    large(store, inside)  # it ends with the store
    tls()
finally:
    finish(spaces)
