"""`gpudev simulate`: what the requests of a trace would have met under a policy or Slurm's rules.

Belongs here: traces and where they come from, the replay of a trace as discrete events, the rules
that are compared, and what is shown of the outcome. The planner and the policy are the service's
own; nothing of them is written a second time.
Never here: anything that the running service needs, and any write to its database. Nothing of the
service imports this package, but the command.

Layers, each importing only those above it:

- `trace`: jobs as a trace tells them; `swf`: the file format; `synthetic`, `history`: where else
  traces come from
- `fleet`: nodes to replay on; `requests`: jobs as that fleet can be asked for them
- `desk`: what policy lets people ask for
- `replay`: the events; `planned`: the planner as the rules of a queue; `backfill`: Slurm's, with
  `backfill_plans`: where its cycles find room
- `measures`, `series`: figures and lines of an outcome; `tables`, `picture`: how they are shown
- `options`: what can be asked for; `command`: that into all the others
"""
