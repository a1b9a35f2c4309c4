"""What is asked for: a corpus, a model, an encoder, and questions."""

from dataclasses import dataclass

from proponent.schema.errors import SettingsError
from proponent.schema.settings import CODE_BLOCK, EncoderSettings, require_codes

from .shape import Shape

_KEY_BYTES = 26 + 4 + 4 + 4 + 4
"""text_hash and its offset, norm, loss and n_tokens of an encoding."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A corpus to be encoded and questions to be asked."""

    shape: Shape
    settings: EncoderSettings
    tokens: int
    """Tokens of the corpus's distinct texts."""
    passage_tokens: int = 256
    codes: str = "int8"
    questions: int = 1000
    batch: int = 100
    """Questions that share one pass over the encodings."""
    token_bytes: float = 4.2
    """Bytes of text for each token."""
    target_tokens: int = 16
    """Tokens of a question, prompt and target."""

    def __post_init__(self) -> None:
        require_codes(self.codes)
        for name in ("tokens", "passage_tokens", "questions", "batch", "target_tokens"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name.replace('_', ' ')} must be at least 1, not {getattr(self, name)}")

    @property
    def passages(self) -> int:
        """Distinct texts to encode."""
        return -(-self.tokens // self.passage_tokens)

    @property
    def sample(self) -> int:
        """Passages that the encoder is fitted on."""
        return min(self.settings.sample_size, self.passages)

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored encoding: codes, a float16 scale for each block of 64, and its key."""
        dim = self.settings.dim
        if self.codes == "float16":
            return 2 * dim + _KEY_BYTES
        return (dim if self.codes == "int8" else dim // 2) + 2 * dim // CODE_BLOCK + _KEY_BYTES

    @property
    def batches(self) -> int:
        """Passes over all encodings."""
        return -(-self.questions // self.batch)
