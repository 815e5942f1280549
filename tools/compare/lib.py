"""What the comparisons in Python share: programs that end with the measurement, what they cost, how Cairn is built and served,
how nbdkit and qemu-nbd are, and how results become a table and a file."""
import contextlib, json, os, pathlib, re, select, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = pathlib.Path(os.environ.get("CAIRN_WORK", "/var/tmp"))  # on a disk; images are kept in it between comparisons
LIMIT = 900  # seconds: no step takes longer
START_LIMIT = 60  # seconds until a server listens
STOP_LIMIT = 30  # seconds until one that is asked to end is killed
CIPHER = "AES-128-GCM"  # Cairn's first choice, and so everybody's
# nbdkit, qemu and libnbd take their ciphers from GnuTLS; whatever a comparison starts inherits this.
GNUTLS = "GNUTLS_SYSTEM_PRIORITY_FILE"
os.environ[GNUTLS] = str(ROOT / "tools/compare/gnutls.conf")


def install(*commands):
    """Installs what the comparisons need. A package that cannot be had is no matter as long as these commands are there."""
    done = subprocess.run([ROOT / "tools/setup", "--for", "compare"])
    missing = [command for command in commands if not shutil.which(command)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}" + (" (tools/setup failed, see above)" if done.returncode else ""))


@contextlib.contextmanager
def workspace(parent=FOLDER):
    """A folder that goes with the measurement, also when that is asked to end."""
    def end(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows undoes things
        sys.exit(143)

    signal.signal(signal.SIGTERM, end)
    with tempfile.TemporaryDirectory(prefix="cairn-compare-", dir=parent) as folder:
        yield pathlib.Path(folder)


def images(mib, parent=FOLDER):
    """The images of tools/compare/datasets by name. Kept between comparisons: they take a minute to make."""
    folder = pathlib.Path(parent) / f"cairn-compare-images-{mib}"
    run(ROOT / "tools/compare/datasets", folder, mib)
    return {name: folder / f"{name}.img" for name in ("rand", "rand2", "vm", "vm2")}


def run(*command, env=None, limit=LIMIT, **how):
    """A step outside the measurement: what it prints. What it says is shown when it fails."""
    # A group of its own, so that what it started ends with it when the measurement is asked to.
    with subprocess.Popen([str(part) for part in command], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, errors="replace", start_new_session=True, **how) as process:
        try:
            out, said = process.communicate(timeout=limit)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed ({process.returncode}):\n{(out + said)[-3000:]}")
    return out


def read_through(path):
    """The page cache holds the file afterwards."""
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass


def processor_seconds(pid, children=False):
    """User and system time of a process; with `children` also of those of its children that ended."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return sum(map(int, fields[11:15 if children else 13])) / os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stop(process, limit):
    """Asks a child to end, and kills it after a limit."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Server:
    """A child process that listens: known by a line that begins with `ready`, behind which `address` is, or by its `port`."""

    def __init__(self, command, ready, log, env=None, port=None):
        self.log = open(log, "ab")
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if ready else self.log,
            stderr=self.log, env=env)
        self.pid = self.process.pid
        self.address = None
        if not (self.has_said(ready) if ready else self.listens(port)):
            self.stop()
            sys.exit(f"{command[0]} did not start:\n{pathlib.Path(log).read_text(errors='replace')[-2000:]}")

    def has_said(self, ready):
        line = self.process.stdout.readline().decode() if select.select([self.process.stdout], [], [], START_LIMIT)[0] else ""
        self.address = line[len(ready):].strip()
        return line.startswith(ready)

    def listens(self, port):
        end = time.monotonic() + START_LIMIT
        while self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            time.sleep(0.05)
        return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        stop(self.process, STOP_LIMIT)
        if self.process.stdout:
            self.process.stdout.close()
        self.log.close()


def build(*products):
    """The folder of Cairn's programs: $CAIRN_BIN's, else built for release."""
    if "CAIRN_BIN" in os.environ:
        return pathlib.Path(os.environ["CAIRN_BIN"]).resolve()
    for product in products:
        subprocess.run(["swift", "build", "-c", "release", "--product", product], cwd=ROOT, check=True, stdout=sys.stderr)
    return pathlib.Path(subprocess.check_output(["swift", "build", "-c", "release", "--show-bin-path"], cwd=ROOT, text=True).strip())


def make_pki(binaries, folder):
    """An authority with a server on loopback ("server") and one caller ("client")."""
    run(binaries / "cairn", "pki", "create-ca", folder)
    run(binaries / "cairn", "pki", "create-server", folder, "server", "--dns", "localhost", "--ip", "127.0.0.1")
    run(binaries / "cairn", "pki", "create-client", folder, "client", "--account", "compare")
    shutil.copy(folder / "ca.crt", folder / "ca-cert.pem")  # as nbdkit, qemu and libnbd name them
    for side in ("server", "client"):
        shutil.copy(folder / f"{side}.crt", folder / f"{side}-cert.pem")
        shutil.copy(folder / f"{side}.key", folder / f"{side}-key.pem")


def cairnd(binaries, pki, store, log):
    """Cairn's server on a new store."""
    run(binaries / "cairnd", "init", "--data", store)
    return Server(
        [binaries / "cairnd", "serve", "--data", store, "--listen", "127.0.0.1:0", "--cert", pki / "server.crt", "--key", pki / "server.key",
         "--ca", pki / "ca.crt", "--crl", pki / "crl.pem", "--log-level", "warning"], "cairnd ready on ", log)


def bench(binaries, work, workload, *options):
    """One workload of cairn-bench against a new store: its run in the file of a measurement."""
    store = pathlib.Path(tempfile.mkdtemp(prefix="cairn-store-", dir=work))
    try:
        with cairnd(binaries, work / "pki", store / "s", work / "cairnd.log") as server:
            run(binaries / "cairn-bench", "run", workload, "--server", server.address, "--identity", work / "pki/client", "--server-pid", server.pid,
                "--quiet", "--json", work / "bench.json", *options)
    finally:
        shutil.rmtree(store)
    return json.loads((work / "bench.json").read_text())["runs"][0]


def with_cipher(server, pki, port):
    """An NBD server, once it was seen to take Cairn's cipher (libnbd tells) of a client that would rather have another: then it
    takes that of every client."""
    ask = ["nbdinfo", "--size", f"nbds://127.0.0.1:{port}/?tls-certificates={pki}"]
    env = {name: value for name, value in os.environ.items() if name != GNUTLS} | {"LIBNBD_DEBUG": "1"}
    try:
        said = subprocess.run(ask, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_LIMIT).stderr
        found = re.search(r"using TLS: cipher (\S+)", said)
        cipher = found[1] if found else "no cipher that is told"
        if cipher != CIPHER:
            sys.exit(f"{server.process.args[0]} took {cipher}, not {CIPHER}:\n{said[-2000:]}")
    except BaseException:
        server.stop()
        raise
    return server


# With `durable` a write is answered when it is on the disk, as Cairn's are. A client's flush behind each write would not do for
# several in flight: it says nothing about writes that are not answered yet.
def nbdkit(pki, file, log, port, durable=False):
    server = Server(
        ["nbdkit", "-f", "--threads", 16, "--tls=require", "--tls-verify-peer", f"--tls-certificates={pki}", "-i", "127.0.0.1", "-p", port,
         *(["--filter=fua", "file", file, "fuamode=force"] if durable else ["file", file])], None, log, port=port)
    return with_cipher(server, pki, port)


def qemu_nbd(pki, file, log, port, durable=False):
    server = Server(
        ["qemu-nbd", "-t", "-f", "raw", "-p", port, "-e", 8, "-b", "127.0.0.1", "--object",
         f"tls-creds-x509,id=t,dir={pki},endpoint=server,verify-peer=on", "--tls-creds", "t",
         *(["--cache=writethrough"] if durable else []), file], None, log, port=port)
    return with_cipher(server, pki, port)


def medians(rows):
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def digits(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def print_table(results, columns, against):
    """Medians of results[load][side], a list of rows, and the least and most of the first column; below, the ratios of the first
    side, which is Cairn, to those that `against` names, given the load's medians."""
    print(f"{'':28} {'':28}" + "".join(f"{title:>16}" for _, title in columns))
    first = columns[0][0]
    for load, sides in results.items():
        median = {side: medians(rows) for side, rows in sides.items()}
        cairn = next(iter(median.values()))
        for side, values in median.items():
            low, high = (digits(end(row[first] for row in sides[side])) for end in (min, max))
            print(f"{load:28} {side:28}" + "".join(f"{digits(values[key]) if values[key] else '-':>16}" for key, _ in columns) + f"   ({low}..{high})")
        for side in against(median):
            print(f"{'':28} {'ratio to ' + side:28}" + "".join(
                f"{cairn[key] / median[side][key]:16.2f}" if median[side][key] else f"{'-':>16}" for key, _ in columns))


def write_json(path, **what):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    pathlib.Path(path).write_text(json.dumps({"commit": commit, "processors": os.cpu_count(), **what}, indent=1))
