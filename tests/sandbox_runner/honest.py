"""Honest programs, each of which must work in every sandbox as it does outside."""

from __future__ import annotations

TORCH = """
import multiprocessing, os, torch
from torch.utils.data import DataLoader, TensorDataset

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(), torch.nn.Linear(4, 2))
    def forward(self, x):
        return self.layers(x)

def square(x):
    return x * x

if __name__ == "__main__":
    assert torch.get_num_threads() == 2
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(64, 1, 16, 16), torch.randint(0, 2, (64,)))
    net = Net()
    optimiser = torch.optim.AdamW(net.parameters())
    for x, y in DataLoader(data, batch_size=16, num_workers=2, shuffle=True):
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimiser.step()
    torch.save(net.state_dict(), "/output/checkpoint.pt")
    net.load_state_dict(torch.load("/output/checkpoint.pt", weights_only=True))
    queue = multiprocessing.Queue()
    queue.put(torch.ones(100_000))
    assert queue.get().sum() == 100_000
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.map(square, [3]) == [9]
    print("worked")
"""

PLAIN = """
import concurrent.futures, mmap, os, signal, subprocess, sys, tempfile, threading
from multiprocessing import Process, shared_memory

assert subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True,
                      check=True).stdout == b"42\\n"
assert subprocess.run("echo hello | cat", shell=True, capture_output=True).stdout == b"hello\\n"
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert list(pool.map(abs, range(-50, 0))) == list(range(50, 0, -1))
memory = shared_memory.SharedMemory(create=True, size=1 << 20)
memory.buf[:2] = b"ok"
memory.close()
memory.unlink()
process = Process(target=print, args=("child",))
process.start()
process.join()
assert process.exitcode == 0
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
os.kill(os.getpid(), signal.SIGUSR1)
assert seen
with tempfile.TemporaryFile() as file:
    file.truncate(1 << 20)
    with mmap.mmap(file.fileno(), 0) as view:
        view[:4] = b"data"
names = []
for number in range(3000):
    with open(f"/tmp/{number}", "w") as file:
        file.write("x")
assert len(os.listdir("/tmp")) >= 3000
import numpy, PIL, pydicom, safetensors
assert numpy.ones((300, 300)).dot(numpy.ones((300, 300))).sum() == 300**3
import logging, hashlib, random, uuid, getpass, platform, time, datetime, zoneinfo
getpass.getuser(); platform.platform(); uuid.uuid4(); random.SystemRandom().random()
print("worked")
"""

OPENMP = """
import os, threading, torch
assert torch.backends.openmp.is_available()
torch.set_num_threads(2)
a = torch.rand(400, 400)
for _ in range(3):
    b = a @ a
assert len(os.listdir("/proc/self/task")) >= 2, "no second thread was started"
one, two = (a * 2).sum(), torch.stack([row.sum() for row in a * 2]).sum()
assert abs(one - two) < 1
print("worked")
"""

WORKERS = """
import multiprocessing, torch
from multiprocessing import shared_memory
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __len__(self):
        return 200
    def __getitem__(self, index):
        return torch.full((1000,), float(index))

def add(name, lock, times):
    memory = shared_memory.SharedMemory(name)
    for _ in range(times):
        with lock:
            memory.buf[0] = (memory.buf[0] + 1) % 251
    memory.close()

if __name__ == "__main__":
    seen = torch.cat([batch[:, 0] for batch in DataLoader(Squares(), 16, num_workers=2,
                      persistent_workers=True, prefetch_factor=2)])
    assert sorted(seen.tolist()) == list(range(200))
    memory = shared_memory.SharedMemory(create=True, size=16)
    lock = multiprocessing.Lock()
    workers = [multiprocessing.Process(target=add, args=(memory.name, lock, 300))
               for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert memory.buf[0] == 600 % 251
    memory.close(); memory.unlink()
    tensor = torch.zeros(1000).share_memory_()
    child = multiprocessing.Process(target=tensor.fill_, args=(7.0,))
    child.start(); child.join()
    assert tensor.sum() == 7000
    print("worked")
"""

CHECKPOINTS = """
import os, torch
from safetensors.torch import load_file, save_file
net = torch.nn.Linear(1000, 1000)
optimiser = torch.optim.AdamW(net.parameters())
for step in range(3):
    net(torch.rand(4, 1000)).sum().backward()
    optimiser.step()
    torch.save({"net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step},
               "/output/checkpoint.pt.new")
    os.replace("/output/checkpoint.pt.new", "/output/checkpoint.pt")
state = torch.load("/output/checkpoint.pt", weights_only=True, mmap=True)
assert state["step"] == 2
net.load_state_dict(state["net"])
optimiser.load_state_dict(state["optimiser"])
save_file(net.state_dict(), "/output/model.safetensors")
assert torch.equal(load_file("/output/model.safetensors")["weight"], net.weight)
print("worked")
"""

#: /data/large/numbers.bin holds 2 GiB, all zero but for the number of each 64th MiB at its start.
MAPPED = """
import mmap, numpy
numbers = numpy.memmap("/data/large/numbers.bin", dtype="<u8", mode="r")
assert numbers.nbytes == 2 << 30
every = (64 << 20) // 8
assert (numbers[::every] == numpy.arange(1, 33)).all()
total = sum(int(part.sum()) for part in numpy.array_split(numbers, 512))
assert total == 33 * 16
with open("/data/large/numbers.bin", "rb") as file:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        assert view[-(64 << 20)] == 32
print("worked")
"""

SMALL_FILES = """
import os
count = 200_000
for folder in range(count // 1000):
    os.mkdir(f"/tmp/{folder}")
    for number in range(1000):
        file = os.open(f"/tmp/{folder}/{number}", os.O_CREAT | os.O_WRONLY)
        os.write(file, b"%d" % number)
        os.close(file)
found = 0
for top, _, names in os.walk("/tmp"):
    found += len(names)
assert found == count, found
for folder in range(0, count // 1000, 20):
    for number in range(1000):
        file = os.open(f"/tmp/{folder}/{number}", os.O_RDONLY)
        assert os.read(file, 10) == b"%d" % number
        os.close(file)
print("worked")
"""

THREADS = """
import concurrent.futures, queue, threading, time
import numpy
barrier = threading.Barrier(16)
results = queue.Queue()
def work(number):
    barrier.wait(20)
    results.put(float(numpy.full(1000, number).sum()))
threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sum(results.get() for _ in threads) == 1000 * sum(range(16))
event = threading.Event()
threading.Timer(0.05, event.set).start()
assert event.wait(10)
with concurrent.futures.ProcessPoolExecutor(2) as pool:
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
print("worked")
"""

PROCESSES = """
import asyncio, fcntl, os, signal, sqlite3, subprocess, sys, tempfile, time
async def talk():
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print(input()[::-1])", stdin=-1, stdout=-1)
    said, _ = await asyncio.wait_for(child.communicate(b"hello\\n"), 30)
    return said
assert asyncio.run(talk()) == b"olleh\\n"
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
child.send_signal(signal.SIGTERM)
assert child.wait(20) == -signal.SIGTERM
seen = []
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCHLD, signal.SIGHUP):
    signal.signal(number, lambda number, _: seen.append(number))
    os.kill(os.getpid(), number)
assert len(seen) == 5
signal.setitimer(signal.ITIMER_REAL, 0.05)
until = time.monotonic() + 20
while len(seen) < 6 and time.monotonic() < until:
    time.sleep(0.01)
assert seen[-1] == signal.SIGALRM
# Locks among the processes of one job: databases and download caches need them.
with tempfile.TemporaryDirectory() as folder:
    database = sqlite3.connect(folder + "/runs.sqlite3")
    database.execute("create table runs (loss real)")
    database.execute("insert into runs values (0.5)")
    database.commit()
    with open(folder + "/lock", "w") as mine, open(folder + "/lock") as other:
        fcntl.flock(mine, fcntl.LOCK_EX)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            raise SystemExit("a lock that holds nobody off")
        except BlockingIOError:
            pass
print("worked")
"""

GRACEFUL = """
import signal, sys, time
def end(*_):
    open("/output/saved", "w").write("state")
    print("worked", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    time.sleep(0.05)
"""

#: Name -> program, and how its sandbox ends.
ONNX = """
import glovebox, torch

layer = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
net = torch.nn.Sequential(
    torch.nn.Conv2d(1, 16, 4, stride=4), torch.nn.BatchNorm2d(16), torch.nn.Flatten(2),
    torch.nn.Linear(16, 16), layer, torch.nn.Flatten(), torch.nn.Linear(256, 2))
path = glovebox.save_onnx(net, torch.zeros(1, 1, 16, 16), dtype="bfloat16")
assert path.read_bytes()[:3] == bytes((8, 8, 0x3A))
print("worked")
"""

PROGRAMS = {
    "torch": TORCH,
    "a model as ONNX": ONNX,
    "plain": PLAIN,
    "OpenMP": OPENMP,
    "workers with shared memory": WORKERS,
    "checkpoints": CHECKPOINTS,
    "2 GB of data, mapped": MAPPED,
    "200,000 small files": SMALL_FILES,
    "threads": THREADS,
    "processes, signals and locks": PROCESSES,
    "a graceful end": GRACEFUL,
}
#: Not for the quick run: many calls, or many bytes.
LONG = {"200,000 small files", "2 GB of data, mapped"}
