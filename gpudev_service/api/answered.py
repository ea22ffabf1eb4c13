"""An answer whose status differs from its route's usual one."""

from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    body: BaseModel
