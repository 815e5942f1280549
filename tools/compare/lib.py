"""What the comparisons in Python share: programs that end with the measurement, what they cost, and how Cairn is built."""
import contextlib, os, pathlib, socket, subprocess, sys, time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 900  # seconds: no step takes longer
START_LIMIT = 60  # seconds until a server listens
STOP_LIMIT = 30  # seconds until one that is asked to end is killed


def run(*command, env=None, limit=LIMIT):
    """A step outside the measurement: what it prints. What it says is shown when it fails."""
    done = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, errors="replace", timeout=limit)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed ({done.returncode}):\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def processor_seconds(pid, children=False):
    """User and system time of a process; with `children` also of those of its children that ended."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return sum(map(int, fields[11:15 if children else 13])) / os.sysconf("SC_CLK_TCK")


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
        line = self.process.stdout.readline().decode()
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
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
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
