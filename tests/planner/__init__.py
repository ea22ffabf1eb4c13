"""The planner: each rule by example, and what must hold in every world by property."""
