"""What people look at: pages at the service's own address, usable without JavaScript.

Belongs here: request handlers that call the API's functions with the API's own permission checks,
pure view models (what a page says, from the models of the API and `now`), templates, one style
sheet and a few small scripts. Never here: a decision about reservations, disks or capacity, SQL,
a second way to find out who somebody is or what they may do, a time put in words by hand.
"""
