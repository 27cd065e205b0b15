"""A real worker whose contenders are fakes; a contender's path names what it does when it is loaded or called."""

import os
import sys
import time

from benchmarks import clips, cuda_peer, limits, runners, worker


def build(contender, batch):
    behavior = contender.path
    if behavior == "raises":
        raise ValueError("planted\nsecond line")
    if behavior == "no-device":
        from edge_seg.errors import DeviceError

        raise DeviceError("planted: no such device")
    if behavior == "dies-loading":
        print("planted last words", file=sys.stderr, flush=True)
        os._exit(3)
    calls = 0

    def predict(frames):
        nonlocal calls
        calls += 1
        if behavior == "dies-later" and calls > 4:
            os._exit(4)
        if behavior == "hangs":
            time.sleep(60)
        if behavior == "prints":
            os.write(1, b"a native library's chatter\n")
        labels = frames[..., 0] % 12
        return labels + 200 if behavior == "wrong-ids" else labels

    return predict, "a fake", "fp32"


def measure_limits(**extent):
    peak = {"gflops": 1000.0, "library": "a fake", "what": "", "reason": "", "tried": []}
    none = {**peak, "gflops": None, "reason": "no such units"}
    return {"peaks": {"fp32": peak, "bf16": none, "int8": peak}, "bandwidth": {"best_gb_s": 10.0}, "threads": 2}


class Loop:
    """Stands in for the naive loop, so that no Keras is needed."""

    def run(self, clip, limit, target):
        return {"frames": limit, "seconds": 10.0, "stage_ms": {"inference": 500.0}, "peak_mb": 1.0}


runners.build = build
cuda_peer.gpu_limits = lambda: {"gpu": "Fake GPU", "peaks": {"fp16": {"gflops": 2000.0}}, "bandwidth": {}}
cuda_peer.decode_speed = lambda clip: {"cpu_fps": 100.0, "cuda_fps": None, "reason": "planted"}
clips.NaiveLoop = lambda contender: Loop()
limits.measure_limits = measure_limits
worker.main()
