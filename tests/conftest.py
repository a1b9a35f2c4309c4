"""What several layers' tests share: one thread, a little language, tiny checkpoints of it, crashes, processes."""

import copy
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

settings.register_profile(
    "proponent", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("proponent")

POSTGRES = Path("/usr/lib/postgresql/15/bin")
SENTENCES = [
    f"{verb} {noun} of {place} {rest}."
    for verb in ("The", "A", "Every")
    for noun, rest in (
        ("capital", "lies on a river"),
        ("currency", "is the franc"),
        ("language", "has many dialects"),
        ("highest mountain", "is covered with snow"),
    )
    for place in ("France", "Peru", "Kenya", "Côte d'Ivoire", "日本")
]


CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'tool' %}{{ raise_exception('tools are not supported') }}{% endif %}"
    "<|{{ message.role }}|>\n{{ message.content | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """Sixty sentences of different lengths."""
    return list(SENTENCES)


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """Train a byte-level BPE tokenizer on the sentences, with a chat template if wanted."""

    def make(*, first_token: bool = True, vocabulary: int = 320, chat: bool = False) -> Any:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
        from transformers import PreTrainedTokenizerFast

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=["<s>", "</s>", *(["<|user|>", "<|assistant|>"] if chat else [])],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        tokenizer.train_from_iterator(SENTENCES, trainer)
        if first_token:
            tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
        made.chat_template = CHAT_TEMPLATE if chat else None
        return made

    return make


@pytest.fixture(scope="session")
def make_checkpoint(make_tokenizer: Callable[..., Any]) -> Callable[..., Path]:
    """Write a tiny random checkpoint, of any architecture with Llama's configuration, and its tokenizer."""

    def make(path: Path, *, architecture: str = "Llama", seed: int = 0, chat: bool = False, **config: Any) -> Path:
        import torch
        import transformers

        sizes = {
            "vocab_size": 320,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 64,
            "initializer_range": 0.2,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": None,
        }
        torch.manual_seed(seed)
        chosen = getattr(transformers, f"{architecture}Config")(**sizes | config)
        model = getattr(transformers, f"{architecture}ForCausalLM")(chosen)
        model.save_pretrained(path)
        make_tokenizer(chat=chat).save_pretrained(path)
        return path

    return make


@pytest.fixture(scope="session")
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """A tiny random Llama; tests only read it."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "llama")


@pytest.fixture(scope="session")
def full_gradients() -> Callable[..., dict[str, Any]]:
    """Every example's gradient of every covered matrix, (b, m, n) float64 by its name, one example at a time."""

    def gradients(model: Any, examples: Any) -> dict[str, Any]:
        import torch
        from torch.nn import functional

        from proponent.encode.layers import cover

        layers = cover(model, blocks=1).layers
        model = copy.deepcopy(model).double()
        if any(layer.expert is not None for layer in layers):
            model.set_experts_implementation("eager")  # the others do not take float64
        parameters = dict(model.named_parameters())
        names = sorted({layer.parameter for layer in layers})
        weights = [parameters[name].requires_grad_() for name in names]
        rows: dict[str, list[Any]] = {layer.name: [] for layer in layers}
        for example in examples:
            ids = torch.tensor([example.token_ids])
            losses = functional.cross_entropy(model(ids).logits[0, :-1].double(), ids[0, 1:], reduction="none")
            taken = losses if example.n_target is None else losses[-example.n_target :]
            found = torch.autograd.grad(taken.sum(), weights, allow_unused=True)
            by_name = dict(zip(names, found, strict=True))
            for layer in layers:
                whole = by_name[layer.parameter]
                rows[layer.name].append(torch.zeros(layer.shape) if whole is None else layer.matrix(whole))
        return {name: torch.stack([row.double() for row in column]) for name, column in rows.items()}

    return gradients


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished demonstration, one for all processes of a test run; tests copy it before they change it."""
    base = tmp_path_factory.getbasetemp()
    run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = run / "demo" / "proponent-demo"
    output = folder / "output.txt"
    with FileLock(run / "demo.lock"):
        if not output.exists():
            command = [sys.executable, "-m", "proponent", "demo", str(folder)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            output.write_text(done.stdout, "utf-8")
    return folder


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of its own, on a socket in a temporary folder."""
    import psycopg  # noqa: F401  (the extra `dev` has it)

    if not (POSTGRES / "initdb").exists() or shutil.which("runuser") is None:
        pytest.skip("needs PostgreSQL 15")
    folder = Path(
        subprocess.check_output(["mktemp", "-d", "/tmp/proponent-postgres-XXXXXX"], text=True).strip()
    )  # a short path: sockets have a limit
    user = pwd.getpwnam("postgres")
    shutil.chown(folder, user.pw_uid, user.pw_gid)

    def as_postgres(*command: object) -> None:
        full = ["runuser", "-u", "postgres", "--", *map(str, command)]
        subprocess.run(full, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)

    as_postgres(POSTGRES / "initdb", "-D", folder / "data", "--auth=trust", "--encoding=UTF8", "--no-sync")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    as_postgres(POSTGRES / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start")
    yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
    as_postgres(POSTGRES / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def empty_postgres(postgres: str, tmp_path: Path) -> Iterator[Any]:
    """A database engine on the server, for an empty database."""
    from sqlalchemy import text

    from proponent.store.catalog import catalog_engine

    engine = catalog_engine(postgres, root=tmp_path)
    yield engine
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


class S3Server:
    """SeaweedFS in a folder of its own, which can be killed and started again with what it has."""

    key, secret = "a-key", "a-secret-that-nobody-may-read"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        allowed = {"name": "test", "credentials": [{"accessKey": self.key, "secretKey": self.secret}]}
        (folder / "s3.json").write_text(json.dumps({"identities": [allowed | {"actions": ["Admin"]}]}))
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(8)]
        self._ports = [one.getsockname()[1] for one in held]
        for one in held:
            one.close()
        self.port = self._ports[3]
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start it, and wait until it takes an object."""
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        options = [
            *("-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-s3", "-s3.config=s3.json"),
            *(f"-{name}={port}" for name, port in zip(names, self._ports[:4], strict=True)),
            *(f"-{name}.grpc={port}" for name, port in zip(names, self._ports[4:], strict=True)),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=100", "-master.volumeSizeLimitMB=64"),
        ]
        command = [str(Path(sys.executable).with_name("weed")), "server", *options]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        for _ in range(240):
            assert self._process.poll() is None, "the server has ended; its log says why"
            with suppress(OSError):
                self.bucket("ready")
                return
            time.sleep(0.25)
        pytest.fail("the server takes no object")

    def bucket(self, name: str) -> Any:
        """Make a bucket, and return the library's way to it."""
        import s3fs

        options = {"endpoint_url": self.url, "region_name": "us-east-1"}
        system = s3fs.S3FileSystem(
            key=self.key, secret=self.secret, client_kwargs=options, use_listings_cache=False, skip_instance_cache=True
        )
        if not system.exists(name):
            system.mkdir(name)
        system.pipe(f"{name}/.ready", b"x")
        system.rm(f"{name}/.ready")
        return system

    def kill(self) -> None:
        """End it as a machine ends that loses its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that tests share; each takes names of its own."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def own_s3_server(tmp_path: Path) -> Iterator[S3Server]:
    """An S3 server that a test may kill."""
    (tmp_path / "s3").mkdir()
    server = S3Server(tmp_path / "s3")
    try:
        server.start()
        yield server
    finally:
        server.kill()


class Crash(BaseException):
    """Stands for a process that ends here: nothing catches it."""


@pytest.fixture
def crash() -> type[BaseException]:
    return Crash


class Crashes:
    """Ends the operation inside a with block at its n-th step: the moment before or after a durable act."""

    def __init__(self) -> None:
        self.at: int | str | None = None
        self.steps: list[str] = []

    @contextmanager
    def after_steps(self, at: int | str) -> Iterator[None]:
        """Raise Crash at a step, by number (from 0) or by name, or not at all when there is no such step."""
        self.at, self.steps = at, []
        try:
            yield
        finally:
            self.at = None

    def step(self, name: str) -> None:
        if self.at is None:
            return
        self.steps.append(name)
        if self.at in (len(self.steps) - 1, name):
            self.at = None  # what the dying process still does in its finally blocks is not interrupted
            raise Crash(name)


@pytest.fixture
def crashes(monkeypatch: pytest.MonkeyPatch) -> Crashes:
    """Make every durable act of the store a place where the process can end, just before it or just after it."""
    import lance

    from proponent.store import place
    from proponent.store.catalog import Catalog

    control = Crashes()

    def around(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def acted(*args: Any, **kwargs: Any) -> Any:
            control.step(f"before {name}")
            result = original(*args, **kwargs)
            control.step(f"after {name}")
            return result

        monkeypatch.setattr(owner, name, acted)

    for name in ("delete", "commit", "restore"):
        around(lance.LanceDataset, name)
    for owner, name in ((lance, "write_dataset"), (Path, "mkdir"), (Path, "replace"), (place.os, "fsync")):
        around(owner, name)
    write = Catalog.write

    @contextmanager
    def crashing_write(catalog: Catalog) -> Iterator[Any]:
        control.step("before a catalog transaction")
        with write(catalog) as session:
            yield session
            session.flush()
            control.step("before a catalog commit")
        control.step("after a catalog commit")

    monkeypatch.setattr(Catalog, "write", crashing_write)
    return control


@pytest.fixture
def start_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start another Python with a script and arguments; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *args: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, *map(str, args)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
