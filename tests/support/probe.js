/* What tests/support/probe.py is for a daemon: modules to be called, and `probe.ask` to call others. */
'use strict';

const probe = (() => {
  const seen = [];
  const asking = new Map();
  const flows = new Map();
  const forever = () => new Promise(() => {});
  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

  function pattern(size) {
    return Uint8Array.from({ length: size }, (_, index) => index % 251);
  }

  function* pieces({ size, piece }) {
    const data = pattern(size);
    for (let start = 0; start < size; start += piece) yield data.subarray(start, start + piece);
  }

  async function described(value) {
    if (!(value instanceof Uint8Array)) return value;
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', value));
    return { size: value.length, sha256: Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('') };
  }

  async function joined(items) {
    return items[0] instanceof Uint8Array ? described(new Uint8Array(await new Blob(items).arrayBuffer())) : items;
  }

  const modules = {
    'Probe.Echo': (e) => e.request,
    'Probe.Digest': async (e) => {
      if (e.request instanceof Uint8Array) return described(e.request);
      const items = [];
      for await (const item of e.items) items.push(item);
      return joined(items);
    },
    'Probe.Make': (e) => pattern(e.request),
    'Probe.Pieces': (e) => pieces(e.request),
    async *'Probe.Count'(e) {
      try {
        for (let number = 0; e.request === null || number < e.request; number++) {
          yield number;
          if (e.request === null) await pause(10);
        }
      } finally {
        seen.push(['count closed', e.request]);
      }
    },
    'Probe.Add': async (e) => {
      let total = 0;
      for await (const item of e.items) total += item;
      return total;
    },
    async *'Probe.Double'(e) {
      for await (const item of e.items) yield 2 * item;
    },
    'Probe.Wait': (e) => {
      seen.push(['begun', e.request]);
      e.signal.addEventListener('abort', () => seen.push(['cancelled', e.request]));
      return forever();
    },
    'Probe.Left': (e) => (e.deadline - Date.now()) / 1000,
    'Probe.Who': (e) => ({ name: e.caller.name, id: e.caller.id, fingerprint: e.caller.fingerprint }),
    'Probe.Fail': (e) => {
      const error = new Error(`said ${e.request}`);
      if (e.request !== 'handler_failed') error.code = e.request;
      throw error;
    },
    'Probe.Secret': () => 'the secret',
  };

  function tell(error) {
    return { code: error.code ?? String(error), message: error.message, peer: error.peer ?? null, callId: error.callId ?? null };
  }

  /** Calls somebody and says how it went; see `Ask` in probe.py. */
  async function ask(spec) {
    const target = $BV.get(spec.target);
    const { timeout, keep_alive: keepAlive, idempotent } = spec.options ?? {};
    const controller = new AbortController();
    asking.set(spec.name ?? '', controller);
    const options = { signal: controller.signal };
    if (timeout !== undefined) options.timeout = 1000 * timeout;
    if (keepAlive !== undefined) options.keepAlive = keepAlive;
    if (idempotent !== undefined) options.idempotent = idempotent;
    if (spec.pieces) options.items = spec.blob ? new Blob([pattern(spec.pieces.size)]) : pieces(spec.pieces);
    else if (spec.items) options.items = spec.items;
    let request = spec.bytes === undefined ? (spec.request ?? null) : pattern(spec.bytes);
    if (spec.blob && spec.bytes !== undefined) request = new Blob([request]);
    const received = [];
    try {
      if (spec.all) {
        for await (const { peer, response, error } of target.callAll(spec.module, request, { ...options, ...spec.all })) {
          received.push(error ? { peer: peer.id, error: tell(error) } : { peer: peer.id, response });
        }
        return { results: received };
      }
      if (!spec.stream) return { response: await described(await target.call(spec.module, request, options)) };
      for await (const item of target.stream(spec.module, request, options)) {
        if (received.push(item) === spec.take) break;
      }
      return { items: await joined(received) };
    } catch (error) {
      return { items: await joined(received), error: tell(error) };
    }
  }

  /** Asks again and again, without waiting for answers, until `stop` with that name; each call is numbered. */
  function start(name, spec, every) {
    const calls = [];
    const call = () => calls.push(ask({ ...spec, name: `${name} ${calls.length}`, request: calls.length }));
    call();
    flows.set(name, { calls, timer: setInterval(call, every) });
  }

  /** How all of them went, when the last has ended. */
  function stop(name) {
    const { calls, timer } = flows.get(name);
    clearInterval(timer);
    return Promise.all(calls);
  }

  /** What becomes of a promise of `$BV`: what it comes to, or its error as `ask` tells it. */
  function outcome(promise) {
    return promise.then((value) => value ?? null, (error) => ({ error: tell(error) }));
  }

  /** Serves the modules, and writes down what the tab is told of others. */
  function serve() {
    for (const [name, handler] of Object.entries(modules)) {
      $BV.module(name, handler, name === 'Probe.Secret' ? { allow: ['Us'] } : {});
    }
    $BV.on('peerconnect', (peer) => seen.push(['peerconnect', [peer.name, peer.id]]));
    $BV.on('peerdisconnect', (id) => seen.push(['peerdisconnect', id]));
    $BV.on('newuser', (alias) => seen.push(['newuser', alias]));
    $BV.on('userremove', (alias) => seen.push(['userremove', alias]));
    $BV.on('connect', () => seen.push(['connect', $BV.getId()]));
    $BV.on('disconnect', (error) => seen.push(['disconnect', error ? error.code : null]));
    $BV.on('notice', (error) => seen.push(['notice', error.code]));
  }

  return { seen, modules, ask, start, stop, outcome, serve, cancel: (name) => asking.get(name).abort() };
})();
