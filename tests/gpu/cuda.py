"""Programs that run inside a lease and use CUDA's driver, without any framework.

Each is Python for a kernel or an interpreter of its own; they print JSON or one word.
"""

from __future__ import annotations

#: What CUDA answers where it is shown no GPU (CUDA_ERROR_NO_DEVICE).
NO_DEVICE = 100

#: The GPUs that CUDA sees, by UUID, and what it said to being initialized.
SEEN = """
import ctypes, json, uuid
cuda = ctypes.CDLL("libcuda.so.1")
said, count, found = cuda.cuInit(0), ctypes.c_int(), []
if said == 0:
    assert cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
for index in range(count.value):
    device, name = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    assert cuda.cuDeviceGet(ctypes.byref(device), index) == 0
    assert cuda.cuDeviceGetUuid(name, device) == 0
    found.append(f"GPU-{uuid.UUID(bytes=bytes(name))}")
print(json.dumps({"said": said, "gpus": found}))
"""

#: Takes some memory of the first GPU and fills it again and again, until it is killed.
LOAD = """
import ctypes, sys
cuda, size = ctypes.CDLL("libcuda.so.1"), int(sys.argv[1])
device, context, place = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
assert cuda.cuInit(0) == 0
assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
assert cuda.cuCtxSetCurrent(context) == 0
assert cuda.cuMemAlloc_v2(ctypes.byref(place), ctypes.c_size_t(size)) == 0
print("taken", flush=True)
while True:
    assert cuda.cuMemsetD8_v2(place, ctypes.c_ubyte(1), ctypes.c_size_t(size)) == 0
    assert cuda.cuCtxSynchronize() == 0
"""

#: Starts `LOAD` as a person's training run that outlives its notebook: in a session of its own.
TRAINING = f"""
import pathlib, subprocess, sys
program = pathlib.Path.home() / "training.py"
program.write_text({LOAD!r})
started = subprocess.Popen(
    [sys.executable, program, "{{size}}"], stdout=subprocess.PIPE, text=True,
    start_new_session=True,
)
print(started.stdout.readline().strip(), started.pid)
"""
