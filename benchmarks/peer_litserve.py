"""The static trio behind LitServe; runs in its own environment, started by `benchmarks.peers`.

One worker and one HTTP process with uvloop and httptools, `fast_queue` (ZeroMQ) on, no access log,
no request tracking, a ready response (FastAPI's encoder would take milliseconds for 100 items).
LitServe parses JSON itself, so the document is written out again for dynens's parser (a few µs).
"""

import litserve
import orjson
from fastapi import Request, Response

from benchmarks.peer_trio import MAX_BATCH, MAX_WAIT_MS, PATH, PORT, Trio


class TrioAPI(litserve.LitAPI):  # type: ignore[misc]
    """One scoring process."""

    def setup(self, device: str) -> None:
        del device
        self.trio = Trio()

    # LitServe looks at this annotation, hence no postponed ones here: `Request` asks for any JSON
    # document, which arrives parsed.
    def decode_request(self, request: Request) -> bytes:
        return orjson.dumps(request)

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def predict(self, x: bytes | list[bytes]) -> bytes | list[bytes]:
        if isinstance(x, list):
            return self.trio.answer(x)
        return self.trio.answer([x])[0]

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/json")


if __name__ == "__main__":
    api = TrioAPI(max_batch_size=MAX_BATCH, batch_timeout=MAX_WAIT_MS / 1e3, api_path=PATH)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=PORT,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
