// Drives the original state manager, unmodified, for tests and benchmarks.
//
//   node original_driver.mjs MODULE PROJECT            commands as JSON lines on stdin, an answer to each on stdout
//   node original_driver.mjs MODULE PROJECT mix SECONDS SEED SHARED...    a busy supervisor, once a line comes on stdin
//   node original_driver.mjs MODULE PROJECT careless SECONDS LOOP...      updates of loops that another one updates as well
//   node original_driver.mjs MODULE PROJECT pids COUNT LOOP               COUNT locked updates, each one timed
//
// Answers and reports are JSON lines; times are seconds of CLOCK_MONOTONIC.
import { createInterface } from 'readline';
import { pathToFileURL } from 'url';

const [modulePath, project, mode = 'steps', ...rest] = process.argv.slice(2);
const { ExternalMultiLoopStateManager } = await import(pathToFileURL(modulePath).href);
const manager = new ExternalMultiLoopStateManager(project);
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const seconds = () => Number(process.hrtime.bigint()) / 1e9;
const config = (loopId) => ({ loopId, objective: `Made by the original as ${loopId}`, completionCriteria: 'npm test' });
console.warn = () => {};

// What happened in one call: when, how long it waited for the lock, from when to when it held it, and its error, if any.
let waited = 0;
let held = null;
const acquire = manager.acquireLock.bind(manager);
manager.acquireLock = async (name) => {
  const from = seconds();
  const lock = await acquire(name);
  held = [seconds(), null];
  waited = held[0] - from;
  return lock;
};
const release = manager.releaseLock.bind(manager);
manager.releaseLock = (name) => {
  if (held !== null) held[1] = seconds();
  release(name);
};
const timed = async (facts, call) => {
  const report = { ...facts, called: seconds() };
  waited = 0;
  held = null;
  try {
    report.result = await call();
  } catch (error) {
    report.error = error.message;
  }
  return { ...report, returned: seconds(), waited, held };
};

// --- one step at a time ---

const kept = {}; // what was read, by loop, and the registry, to be written later
const steps = {
  patience: ({ attempts }) => { manager.maxLockAttempts = attempts; },
  // The next call of a method stops this process before it begins, until it gets SIGCONT.
  stop: ({ before }) => {
    const method = manager[before].bind(manager);
    manager[before] = (...words) => {
      manager[before] = method;
      process.kill(process.pid, 'SIGSTOP');
      return method(...words);
    };
  },
  lock: async ({ name }) => (await manager.acquireLock(name)).fencingToken,
  unlock: ({ name }) => manager.releaseLock(name),
  create: ({ loop }) => manager.createLoop(config(loop), { force: true }).then(() => null),
  archive: ({ loop }) => manager.archiveLoop(loop),
  pid: ({ loop, pid }) => manager.updateLoopPid(loop, pid),
  update: ({ loop, changes }) => manager.updateLoop(loop, changes),
  // The two halves of updateLoop, which takes no lock: what is read now may be written much later.
  read: ({ loop }) => (kept[loop] = manager.getLoop(loop)),
  write: ({ loop, changes }) => {
    const late = new ExternalMultiLoopStateManager(project);
    late.getLoop = () => kept[loop];
    if (kept.registry) late.loadRegistry = () => kept.registry;
    return late.updateLoop(loop, changes);
  },
  registry: () => (kept.registry = manager.loadRegistry()),
};

async function follow() {
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    say(await timed({ do: command.do }, () => steps[command.do](command)));
  }
}

// --- a busy supervisor ---

async function mix(duration, seed, shared) {
  let state = Number(seed);
  const random = (n) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >> 8) % n;
  };
  const own = [];
  const until = seconds() + Number(duration);
  for (let number = 0; seconds() < until; number += 1) {
    const value = `${seed}-${number}`;
    const choice = random(10);
    if (choice === 0 && own.length < 2) {
      const loop = `ralph-original-${seed}-${number}`;
      const report = await timed({ do: 'create', loop, value }, () => steps.create({ loop }));
      if (!report.error) own.push(loop);
      say(report);
    } else if (choice === 1 && own.length > 0) {
      const loop = own.shift();
      say(await timed({ do: 'archive', loop, value }, () => manager.archiveLoop(loop)));
    } else {
      // On a loop of its own, or on one that gitstate works on. What it added before is read again: a lost one is seen.
      const loop = own.length > 0 && choice < 6 ? own[random(own.length)] : shared[random(shared.length)];
      const key = `original${seed}`;
      const report = await timed({ do: 'update', loop, key, value }, () =>
        manager.updateLoop(loop, { [key]: [...(manager.getLoop(loop)[key] ?? []), value] }));
      delete report.result;
      say(report);
    }
    await manager.sleep(random(12));
  }
}

async function careless(duration, loops) {
  const until = seconds() + Number(duration);
  for (let number = 0; seconds() < until; number += 1) {
    const changes = { status: number % 3 ? 'running' : 'paused', padding: '.'.repeat((number % 7) * 3000) };
    const report = await timed({ do: 'update' }, () => manager.updateLoop(loops[number % loops.length], changes));
    delete report.result;
    say(report);
    await manager.sleep(number % 4);
  }
}

async function pids(count, loop) {
  for (let number = 0; number < Number(count); number += 1) {
    const report = await timed({ do: 'pid' }, () => manager.updateLoopPid(loop, process.pid));
    delete report.result;
    say(report);
  }
}

if (mode === 'steps') await follow();
if (mode === 'mix' || mode === 'careless') {
  say({ ready: true });
  await new Promise((resolve) => process.stdin.once('data', resolve));
  await (mode === 'mix' ? mix(rest[0], rest[1], rest.slice(2)) : careless(rest[0], rest.slice(1)));
  process.stdin.destroy();
}
if (mode === 'pids') await pids(rest[0], rest[1]);
