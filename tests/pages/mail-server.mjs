// A mail server on this machine that stores the mails it accepts. The tests of the pages import it as a module; the service's tests
// run it as a program, with its options as a JSON argument:
//     node tests/pages/mail-server.mjs '{"file":"/tmp/mails","tls":"starttls","key":"…","cert":"…","login":["user","password"]}'
// It prints its port.

import fs from "node:fs";
import { once } from "node:events";
import PostalMime from "postal-mime";
import { SMTPServer } from "smtp-server";

/** Its answers to recipients with these names. */
const REFUSALS = {
  nobody: [550, "5.1.1 <nobody@example.org>: no such user"],
  busy: [451, "4.3.2 try again later"],
};

/**
 * Starts it. `tls` is `none`, `starttls` or `implicit`. `kept` is called with each parsed mail, and with each login, before the
 * client gets its answer.
 */
export async function mailServer({ tls = "none", key, cert, login, kept }) {
  const server = new SMTPServer({
    secure: tls === "implicit",
    ...(key && { key: fs.readFileSync(key), cert: fs.readFileSync(cert) }),
    disabledCommands: [...(tls === "none" ? ["STARTTLS"] : []), ...(login ? [] : ["AUTH"])],
    authOptional: !login,
    allowInsecureAuth: true,
    // Looking up the names of connecting addresses is of no use here and may take seconds.
    disableReverseLookup: true,
    onAuth({ username, password }, session, done) {
      kept({ login: username, secure: session.secure });
      if (username === login[0] && password === login[1]) done(null, { user: username });
      else done(Object.assign(new Error("5.7.8 wrong password"), { responseCode: 535 }));
    },
    onRcptTo({ address }, session, done) {
      const [name] = address.split("@");
      if (name === "slow") return; // never answered
      const [responseCode, words] = REFUSALS[name] ?? [];
      done(words && Object.assign(new Error(words), { responseCode }));
    },
    async onData(stream, session, done) {
      const raw = Buffer.concat(await stream.toArray()).toString();
      const { from, to, subject, text, html, attachments, headers } = await PostalMime.parse(raw, { attachmentEncoding: "utf8" });
      const recipients = session.envelope.rcptTo.map(({ address }) => address);
      const names = headers.map(({ key: name }) => name);
      kept({ recipients, secure: session.secure, from, to, subject, text, html, attachments, headers: names, raw });
      // It has the mail but dies before it says so.
      if (recipients.some((address) => address.startsWith("lost@"))) return lose(session);
      done();
    },
    logger: false,
  });
  const lose = ({ id }) => {
    for (const connection of server.connections) if (connection.id === id) connection._socket.destroy();
  };
  server.on("error", () => {}); // a client that disconnects
  const listening = server.listen(0, "127.0.0.1");
  await once(listening, "listening");
  return { port: listening.address().port, close: () => new Promise((done) => server.close(done)) };
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const { file, ...options } = JSON.parse(process.argv[2]);
  const { port } = await mailServer({ ...options, kept: (what) => fs.appendFileSync(file, `${JSON.stringify(what)}\n`) });
  console.log(port);
  process.stdin.resume().on("end", () => process.exit()); // the parent process has ended
}
