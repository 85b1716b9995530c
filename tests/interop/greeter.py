"""The greeter on Python's bottle and bottle-session 1.0: the other side of the interop test."""

import sys

import bottle
import bottle_session


def main():
    redis_port, redis_db = int(sys.argv[1]), int(sys.argv[2])
    app = bottle.app()
    app.install(bottle_session.SessionPlugin(
        host="127.0.0.1", port=redis_port, db=redis_db, cookie_lifetime=600))

    @app.get("/")
    def index(session):
        return "Hello, %s\n" % session["name"] if session["name"] else "I don't recognize you.\n"

    @app.get("/set/<user_name>")
    def set_name(session, user_name):
        # Bottle hands wildcards over as Latin-1 of the UTF-8 bytes unless it is told otherwise.
        session["name"] = user_name
        return "I recognize you now.\n"

    @app.get("/regenerate")
    def regenerate(session):
        session.regenerate()
        return "You have a new session id.\n"

    @app.get("/forget")
    def forget(session):
        session.destroy()
        return "I have forgotten you.\n"

    class Server(bottle.WSGIRefServer):
        def run(self, handler):
            from wsgiref.simple_server import WSGIRequestHandler, make_server

            class Quiet(WSGIRequestHandler):
                def log_message(self, *args):
                    pass

            server = make_server(self.host, 0, handler, handler_class=Quiet)
            print("listening on %d" % server.server_port, flush=True)
            server.serve_forever()

    bottle.run(app, server=Server, host="127.0.0.1", quiet=True)


main()
