"""Ready parts for `jupyterhub_config.py`: the service, roles and scopes, spawner classes.

Belongs here: functions that set traits on the configuration object, with the reason for each scope.
Never here: logic that runs after the Hub has read its configuration, but for what
`authenticators` makes of the answer of a login provider, and `logs` of long messages.
"""
