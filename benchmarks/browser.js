/* What benchmarks/browser.py does in a page. Durations are milliseconds. */
'use strict';

const bench = (() => {
  const REQUEST = { text: 'Friday' };
  let echo;
  let receive;
  let peer;

  /** Calls for so long, so many at once: how long each took, and all of it. */
  async function calls(atOnce, duration) {
    const took = [];
    const begun = performance.now();
    const end = begun + duration;
    const oneAfterTheOther = async () => {
      for (let start; (start = performance.now()) < end; took.push(performance.now() - start)) await echo();
    };
    await Promise.all(Array.from({ length: atOnce }, oneAfterTheOther));
    return [took, performance.now() - begun];
  }

  /** Bytes that came, and the time. */
  async function bulk(size, piece) {
    const begun = performance.now();
    const received = await receive(size, piece);
    return [received, performance.now() - begun];
  }

  async function timed(work) {
    const begun = performance.now();
    await work();
    return performance.now() - begun;
  }

  // -- BoneValue -----------------------------------------------------------------------------------------------------

  /** Call that peer from now on; gives the time of the first call. */
  function ours(id) {
    const target = $BV.get(id);
    echo = () => target.call('Probe.Echo', REQUEST);
    receive = async (size, piece) => {
      let received = 0;
      for await (const item of target.stream('Probe.Pieces', { size, piece })) received += item.length;
      return received;
    };
    return timed(echo);
  }

  function serve() {
    $BV.module('Probe.Pieces', function* ({ request: { size, piece } }) {
      const data = new Uint8Array(piece);
      for (let sent = 0; sent < size; sent += piece) yield data;
    });
  }

  // -- PeerJS --------------------------------------------------------------------------------------------------------

  /** Be online, and answer; gives one's id. */
  function theirs(port) {
    peer = new Peer({ host: '127.0.0.1', port, path: '/', config: { iceServers: [] } });
    peer.on('connection', (connection) => {
      const { pack, unpack } = FORMS[connection.serialization];
      connection.on('data', (data) => answer(connection, pack, unpack(data)));
    });
    return new Promise((done) => peer.on('open', done));
  }

  /** What a page does to its messages for each `serialization`; bytes go as they are. */
  const asTheyAre = (message) => message;
  const FORMS = {
    binary: { pack: asTheyAre, unpack: asTheyAre },
    raw: { pack: JSON.stringify, unpack: (data) => (typeof data === 'string' ? JSON.parse(data) : data) },
  };

  function answer(connection, pack, message) {
    if (!message.size) return connection.send(pack(message));
    const data = new Uint8Array(message.piece);
    for (let sent = 0; sent < message.size; sent += message.piece) connection.send(data);
  }

  /** Call that peer from now on; gives the time of the first call. */
  function meet(id, serialization) {
    return timed(async () => {
      const connection = peer.connect(id, { reliable: true, serialization });
      const { pack, unpack } = FORMS[serialization];
      const send = (message) => connection.send(pack(message));
      await new Promise((done) => connection.on('open', done));
      const waiting = new Map();
      let number = 0;
      let onPiece = null;
      connection.on('data', (data) => {
        const message = unpack(data);
        if (message.number === undefined) return onPiece(message.byteLength);
        waiting.get(message.number)();
        waiting.delete(message.number);
      });
      echo = () => new Promise((done) => {
        waiting.set(++number, done);
        send({ number, ...REQUEST });
      });
      receive = (size, piece) => new Promise((done) => {
        let received = 0;
        onPiece = (length) => (received += length) >= size && done(received);
        send({ size, piece });
      });
      await echo();
    });
  }

  return { calls, bulk, ours, serve, theirs, meet };
})();
