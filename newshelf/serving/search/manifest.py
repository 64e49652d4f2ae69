"""What an index's manifest says of a search."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["SearchManifest", "codes_file"]

Positive = Annotated[int, Field(gt=0)]


class SearchManifest(BaseModel):
    """Codes of a matrix, in lists or not."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bytes: Positive
    """Of the file of the codes."""
    step: Annotated[float, Field(gt=0)]
    row_norm: Annotated[float, Field(ge=0)]
    row_error: Annotated[float, Field(ge=0)]
    """See ``codes.Codes``."""
    lists: Positive | None = None
    """None: the search is exact."""
    budgets: dict[Positive, Positive] = {}
    """Rows that an approximate search compares, by how many are asked for."""

    @model_validator(mode="after")
    def _lists_have_budgets(self) -> "SearchManifest":
        if (self.lists is None) != (not self.budgets):
            raise ValueError("lists and budgets come together")
        return self


def codes_file(name: str) -> str:
    """The file of the codes of a matrix."""
    return f"{name}.faiss"
