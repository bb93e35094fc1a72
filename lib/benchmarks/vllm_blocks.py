"""Ask vLLM's own manager of blocks what requests hit: `VLLM_PYTHON lib/benchmarks/vllm_blocks.py FILE BLOCKS`.

The file is one that `kvprefix replay --ignore-outputs` takes. One request at a time is admitted and is over; no model
runs. It prints JSON: prompt tokens, those that were cached, and the CPU seconds without vLLM's start.
"""

import json
import sys
import time

import torch
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.request import Request

BLOCK_SIZE = 16


def main(path, blocks):
    """Replay the file and print what was found."""
    start = time.process_time()
    init_none_hash(sha256)
    manager, hasher = make_manager(int(blocks)), get_request_block_hasher(BLOCK_SIZE, sha256)
    sampling, queries, hits = SamplingParams(max_tokens=1), 0, 0
    with open(path) as file:
        for number, line in enumerate(file):
            asked = json.loads(line)
            request = Request(str(number), asked["prompt_token_ids"], sampling, None, block_hasher=hasher)
            queries += request.num_tokens
            hits += admit(manager, request)
            manager.free(request)
    print(json.dumps({"queries": queries, "hits": hits, "replay_s": time.process_time() - start}))


def make_manager(blocks):
    """Return a manager of a pool for one kind of layer."""
    spec = FullAttentionSpec(block_size=BLOCK_SIZE, num_kv_heads=1, head_size=1, dtype=torch.float16)
    config = KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)])
    return KVCacheManager(config, 2**20, BLOCK_SIZE, BLOCK_SIZE)


def admit(manager, request):
    """Give a request the blocks of its prompt; return how many of its tokens were cached."""
    found, n, *_ = manager.get_computed_blocks(request)
    manager.allocate_slots(request, request.num_tokens - n, n, found)
    return n


if __name__ == "__main__":
    main(*sys.argv[1:])
