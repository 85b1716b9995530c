"""Bottle with bottle-session on Redis, as bottle-session's README sets it up. Settings: REDIS_URL, LIFETIME_S."""

import os
from urllib.parse import urlsplit

import bottle
import bottle_session

url = urlsplit(os.environ["REDIS_URL"])
app = bottle.Bottle()
app.install(bottle_session.SessionPlugin(
    host=url.hostname, port=url.port, db=int(url.path.strip("/")), cookie_lifetime=int(os.environ["LIFETIME_S"])))


@app.get("/plain")
def plain():
    return "hello"


@app.get("/create/<name>")
def create(session, name):
    session["name"] = name
    return "created"


@app.get("/read")
def read(session):
    return "Hello, %s" % session.get("name", "?")


@app.get("/change")
def change(session):
    count = int(session.get("count", "0")) + 1
    session["count"] = count
    return str(count)


@app.get("/count")
def count(session):
    return session.get("count", "0")
