"""Section `extract`: how the embeddings are cut into files."""

from typing import Annotated

from pydantic import Field

from pipeline.params.base import Section


class ExtractParams(Section):
    shard_images: Annotated[int, Field(ge=1, le=100_000)]
