// Express with express-session and connect-redis, as their READMEs set them up. One process for each core, with
// NODE_ENV=production, as Express' page on performance advises. Usage: node server.js PORT REDIS_URL LIFETIME_S
import cluster from "node:cluster";
import { availableParallelism } from "node:os";
import { RedisStore } from "connect-redis";
import express from "express";
import session from "express-session";
import { createClient } from "redis";

const [port, url, lifetime] = process.argv.slice(2);

if (cluster.isPrimary) {
  for (let n = 0; n < availableParallelism(); n++) cluster.fork();
} else {
  const client = createClient({ url });
  await client.connect();
  const app = express();
  app.get("/plain", (req, res) => res.send("hello"));
  app.use(
    session({
      store: new RedisStore({ client }),
      resave: false,
      saveUninitialized: false,
      secret: "a secret of the comparison",
      cookie: { maxAge: lifetime * 1000 },
    }),
  );
  app.get("/create/:name", (req, res) => {
    req.session.name = req.params.name;
    res.send("created");
  });
  app.get("/read", (req, res) => res.send(`Hello, ${req.session.name ?? "?"}`));
  app.get("/change", (req, res) => {
    req.session.count = (req.session.count ?? 0) + 1;
    res.send(String(req.session.count));
  });
  app.get("/count", (req, res) => res.send(String(req.session.count ?? 0)));
  app.listen(port, "127.0.0.1");
}
