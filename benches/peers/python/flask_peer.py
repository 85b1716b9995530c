"""Flask with Flask-Session on Redis, as Flask-Session's documentation sets it up. Settings: REDIS_URL, LIFETIME_S."""

import os
from datetime import timedelta

import flask
import flask_session
import redis

app = flask.Flask(__name__)
app.config.update(
    SESSION_TYPE="redis",
    SESSION_REDIS=redis.Redis.from_url(os.environ["REDIS_URL"]),
    PERMANENT_SESSION_LIFETIME=timedelta(seconds=int(os.environ["LIFETIME_S"])),
)
flask_session.Session(app)


@app.get("/plain")
def plain():
    return "hello"


@app.get("/create/<name>")
def create(name):
    flask.session["name"] = name
    return "created"


@app.get("/read")
def read():
    return "Hello, %s" % flask.session.get("name", "?")


@app.get("/change")
def change():
    flask.session["count"] = flask.session.get("count", 0) + 1
    return str(flask.session["count"])


@app.get("/count")
def count():
    return str(flask.session.get("count", 0))
