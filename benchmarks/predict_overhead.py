"""The time that REST, the gateway and serving add to a prediction of Triton."""

import statistics
import time

import httpx
from figures import Figure
from pictures import jpegs
from serving import HEIGHT_PX, WIDTH_PX, deployed_version, model_file
from vesta import Vesta
from vesta_common.media.model_pictures import model_pixels
from vesta_common.media.model_signatures import EMBEDDING, input_format
from vesta_local.engines.addresses import admin_settings
from vesta_local.platform import Platform
from vesta_serving.model_parts import divide
from vesta_serving.triton.client import Triton
from vesta_serving.triton.repository import backbone_name

PICTURES = 200
WARM_PICTURES = 20
GOAL_MS = 6.0
FLOOR_MS = 20.0


def measure(owner: Vesta, platform: Platform, deployment: str) -> list[Figure]:
    """`predict_overhead_ms`: the median time of REST Predict for a JPEG, minus that of Triton for its pixels. Each picture is sent to
    both in turn.
    """
    pictures = list(jpegs(PICTURES, WIDTH_PX, HEIGHT_PX))
    version = deployed_version(owner, deployment)
    declared = input_format(version)
    name = backbone_name(divide(model_file(owner, version.name)).digest, declared)
    triton = Triton(admin_settings(platform.home).triton_address)
    rest_ms, triton_ms = [], []
    with httpx.Client(
        base_url=f"http://{platform.home.address('gateway')}",
        headers={"authorization": f"Bearer {platform.home.owner_key}", "content-type": "image/jpeg"},
    ) as client:
        for picture in pictures:
            pixels = model_pixels(picture, declared)[None]
            began = time.perf_counter()
            client.post(f"/v1/{deployment}:predict", content=picture).raise_for_status()
            answered = time.perf_counter()
            triton.infer(name, pixels, [EMBEDDING])
            rest_ms.append(1000 * (answered - began))
            triton_ms.append(1000 * (time.perf_counter() - answered))
    triton.close()
    rest, bare = (statistics.median(column[WARM_PICTURES:]) for column in (rest_ms, triton_ms))
    return [
        Figure(
            "predict_overhead_ms",
            rest - bare,
            GOAL_MS,
            lower=True,
            floor=FLOOR_MS,
            baseline="the call of Triton with decoded pixels, alternating with Predict; decoding counts as the platform's",
            details={"rest_predict_p50_ms": rest, "triton_p50_ms": bare},
        )
    ]
