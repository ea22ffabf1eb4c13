import { Notification } from '@jupyterlab/apputils';
import { ServerConnection } from '@jupyterlab/services';

import type { ILease } from './lease';
import { LeaseModel } from './model';
import { Notices } from './notices';
import type { IWords } from './words';

jest.mock('@jupyterlab/services', () => ({ ServerConnection: { makeRequest: jest.fn() } }));
jest.mock('@jupyterlab/coreutils', () => ({ URLExt: { join: (...parts: string[]) => parts.join('/') } }));
jest.mock('@jupyterlab/apputils', () => ({
  Notification: { emit: jest.fn(() => 'one'), error: jest.fn(), success: jest.fn(), dismiss: jest.fn() }
}));

const trans: IWords = {
  __: (text, ...values) => values.reduce<string>((said, value, i) => said.replace(`%${i + 1}`, String(value)), text),
  _n: (one, many, count) => (count === 1 ? one : many)
};
const START = Date.parse('2026-03-01T12:00:00Z');
const MINUTE = 60_000;
const asked = jest.mocked(ServerConnection.makeRequest);

/** What a browser's page has of what is used. */
const page = {
  hidden: false,
  seen: () => {},
  text: '',
  reloads: 0,
  kept: new Map<string, string>()
};

function turn(hidden: boolean): void {
  page.hidden = hidden;
  page.seen();
}

function lease(minutes: number, values: Partial<ILease> = {}): ILease {
  const at = (time: number): string => new Date(time).toISOString();
  return {
    now: at(Date.now()),
    visitor: { name: 'ada', owner: true },
    reservation: {
      state: 'active',
      starts_at: at(START - 120 * MINUTE),
      expires_at: at(START + minutes * MINUTE),
      extension: { possible_hours: 2, extendable_until: null, limited_by: null }
    },
    collaborators: [],
    snapshots: [],
    save: null,
    away: null,
    ...values
  } as unknown as ILease;
}

function answer(status: number, body: unknown): Response {
  return { ok: status < 400, status, text: async () => JSON.stringify(body) } as Response;
}

function make(): LeaseModel {
  return new LeaseModel({ baseUrl: '/user/ada' } as ServerConnection.ISettings, trans);
}

beforeEach(() => {
  jest.useFakeTimers({ now: START, doNotFake: ['nextTick', 'queueMicrotask'] });
  jest.clearAllMocks();
  Object.assign(page, { hidden: false, text: '', reloads: 0, kept: new Map() });
  const live = {
    setAttribute: () => {},
    set textContent(text: string) {
      page.text = text;
    }
  };
  Object.assign(globalThis, {
    document: {
      get hidden() {
        return page.hidden;
      },
      addEventListener: (_: string, listener: () => void) => (page.seen = listener),
      createElement: () => live,
      body: { append: () => {} }
    },
    window: {
      setTimeout: (work: () => void, wait: number) => setTimeout(work, wait),
      clearTimeout: (timer: number) => clearTimeout(timer),
      location: { reload: () => page.reloads++ },
      localStorage: {
        getItem: (name: string) => page.kept.get(name) ?? null,
        setItem: (name: string, value: string) => page.kept.set(name, value)
      }
    }
  });
  asked.mockImplementation(async () => answer(200, lease(600)));
});

afterEach(() => jest.useRealTimers());

describe('what is asked for', () => {
  it('is nothing while the page is hidden, and news once when it is seen again', async () => {
    turn(true);
    const model = make();
    model.shown = true;
    model.hint('changed');
    model.failing();
    await jest.advanceTimersByTimeAsync(10 * MINUTE);
    expect(asked).not.toHaveBeenCalled();
    turn(false);
    await jest.advanceTimersByTimeAsync(0);
    expect(asked).toHaveBeenCalledTimes(1);
  });

  it('is what there is to save, also while the page is hidden', async () => {
    const model = make();
    turn(true);
    model.hint('save');
    await jest.advanceTimersByTimeAsync(0);
    expect(asked).toHaveBeenCalledTimes(1);
  });

  it('is two looks a minute while the panel is to be seen, and none otherwise', async () => {
    const model = make();
    await model.refresh();
    model.shown = true;
    await jest.advanceTimersByTimeAsync(10 * MINUTE);
    expect(asked).toHaveBeenCalledTimes(1 + 20);
    model.shown = false;
    await jest.advanceTimersByTimeAsync(10 * MINUTE);
    expect(asked).toHaveBeenCalledTimes(1 + 20);
  });

  it('is one answer for many, and one more for news that come meanwhile', async () => {
    const answers: ((response: Response) => void)[] = [];
    asked.mockImplementation(() => new Promise(resolve => answers.push(resolve)));
    const model = make();
    const both = [model.refresh(), model.refresh()];
    model.hint('save');
    expect(answers.length).toBe(1);
    answers[0]?.(answer(200, lease(600)));
    await Promise.all(both);
    await jest.advanceTimersByTimeAsync(0);
    expect(answers.length).toBe(2);
    answers[1]?.(answer(200, lease(600, { save: { id: 'one', until: '' } })));
    await jest.advanceTimersByTimeAsync(0);
    expect(model.lease?.save?.id).toBe('one');
    expect(answers.length).toBe(2);
  });
});

describe('a server that does not answer as it did', () => {
  it('offers a reload once when this session has ended, and reloads nothing by itself', async () => {
    const model = make();
    model.warnings = [];
    new Notices(model, trans);
    await model.refresh();
    asked.mockImplementation(async () => answer(403, { error: { message: 'Your session has ended.' } }));
    await model.refresh();
    await model.refresh();
    expect(model.signedOut).toBe(true);
    expect(model.trouble).toBe('Your session has ended.');
    expect(Notification.error).toHaveBeenCalledTimes(1);
    const [text, options] = jest.mocked(Notification.error).mock.calls[0] ?? [];
    expect(text).toContain('Reload');
    expect(page.text).toBe(text);
    expect(page.reloads).toBe(0);
    options?.actions?.[0]?.callback({} as MouseEvent);
    expect(page.reloads).toBe(1);
  });

  it('keeps what is known, and goes on when it answers again', async () => {
    const model = make();
    model.warnings = [];
    new Notices(model, trans);
    await model.refresh();
    asked.mockImplementation(async () => Promise.reject(new TypeError('network')));
    await model.refresh();
    expect(model.trouble).toBe('This server does not answer at the moment.');
    expect(model.signedOut).toBe(false);
    expect(model.lease).not.toBeNull();
    asked.mockImplementation(async () => answer(200, lease(600)));
    await model.refresh();
    expect(model.trouble).toBeNull();
    expect(Notification.error).not.toHaveBeenCalled();
  });

  it('refuses in its own words', async () => {
    const model = make();
    asked.mockImplementation(async () => answer(409, { error: { message: 'Somebody else waits.' } }));
    await expect(model.extend(8)).rejects.toThrow('Somebody else waits.');
  });
});

describe('warnings', () => {
  it('come once each, the last one loud, and go when the lease is extended', async () => {
    asked.mockImplementation(async () => answer(200, lease(31)));
    const model = make();
    model.warnings = [30, 5];
    new Notices(model, trans);
    await model.refresh();
    expect(Notification.emit).not.toHaveBeenCalled();
    await jest.advanceTimersByTimeAsync(10 * MINUTE);
    expect(jest.mocked(Notification.emit).mock.calls.map(call => call[1])).toEqual(['warning']);
    await jest.advanceTimersByTimeAsync(17 * MINUTE);
    expect(jest.mocked(Notification.emit).mock.calls.map(call => call[1])).toEqual(['warning', 'error']);
    expect(page.text).toContain('Save your work');
    asked.mockImplementation(async () => answer(200, lease(180)));
    await model.extend(2);
    expect(Notification.dismiss).toHaveBeenCalledTimes(2);
  });

  it('come at their moment, and at once when a setting makes them due', async () => {
    asked.mockImplementation(async () => answer(200, lease(30)));
    const model = make();
    model.warnings = [29.9, 5];
    new Notices(model, trans);
    await model.refresh();
    await jest.advanceTimersByTimeAsync(5_900);
    expect(Notification.emit).not.toHaveBeenCalled();
    await jest.advanceTimersByTimeAsync(200);
    expect(Notification.emit).toHaveBeenCalledTimes(1);
    model.warnings = [29.9, 29.5];
    expect(Notification.emit).toHaveBeenCalledTimes(1);
    await jest.advanceTimersByTimeAsync(MINUTE);
    expect(Notification.emit).toHaveBeenCalledTimes(2);
    model.warnings = [29.9, 29.5, 29];
    expect(Notification.emit).toHaveBeenCalledTimes(3);
  });

  it('wait for a page that is looked at', async () => {
    asked.mockImplementation(async () => answer(200, lease(4)));
    const model = make();
    model.warnings = [5];
    new Notices(model, trans);
    page.hidden = true;
    await model.refresh();
    expect(Notification.emit).not.toHaveBeenCalled();
  });
});

describe('what has happened to the server', () => {
  const at = (minutes: number): string => new Date(START + minutes * MINUTE).toISOString();

  /** A lease of its own for each test: what was put aside is known by the page's modules. */
  function happened(id: string, minutes: number | null): ILease {
    const told = lease(600);
    const notice = minutes === null ? null : { text: 'The server was killed.', at: at(minutes) };
    return { ...told, reservation: { ...told.reservation, id, notice } as ILease['reservation'] };
  }

  it('is said once on a page, with its time, and not again once it is put aside', async () => {
    asked.mockImplementation(async () => answer(200, happened('a', -5)));
    const model = make();
    new Notices(model, trans);
    await model.refresh();
    await jest.advanceTimersByTimeAsync(10 * MINUTE);
    expect(model.notice?.text).toBe('The server was killed.');
    expect(Notification.emit).toHaveBeenCalledTimes(1);
    const [text, type, options] = jest.mocked(Notification.emit).mock.calls[0] ?? [];
    expect(text).toBe('12:55: The server was killed.');
    expect(type).toBe('info');
    expect(page.text).toBe(text);
    options?.actions?.[0]?.callback({} as MouseEvent);
    expect(model.notice).toBeNull();
    expect(Notification.dismiss).toHaveBeenCalledTimes(1);
    await model.refresh();
    expect(Notification.emit).toHaveBeenCalledTimes(1);
    expect([...page.kept]).toEqual([['gpudev-lab:dismissed:a', at(-5)]]);
  });

  it('is said again when it happens again, and is kept aside over a reload', async () => {
    page.kept.set('gpudev-lab:dismissed:b', at(-5));
    asked.mockImplementation(async () => answer(200, happened('b', -5)));
    const model = make();
    new Notices(model, trans);
    await model.refresh();
    expect(model.notice).toBeNull();
    asked.mockImplementation(async () => answer(200, happened('b', 1)));
    await model.refresh();
    expect(model.notice).not.toBeNull();
    expect(Notification.emit).toHaveBeenCalledTimes(1);
    asked.mockImplementation(async () => answer(200, happened('b', 2)));
    await model.refresh();
    expect(Notification.dismiss).toHaveBeenCalledTimes(1);
    expect(Notification.emit).toHaveBeenCalledTimes(2);
  });

  it('waits for a page that is looked at, and can be put aside where a browser keeps nothing', async () => {
    Object.assign(globalThis.window, { localStorage: undefined });
    asked.mockImplementation(async () => answer(200, happened('c', -5)));
    const model = make();
    new Notices(model, trans);
    page.hidden = true;
    await model.refresh();
    expect(Notification.emit).not.toHaveBeenCalled();
    turn(false);
    await jest.advanceTimersByTimeAsync(MINUTE);
    expect(Notification.emit).toHaveBeenCalledTimes(1);
    model.dismiss();
    expect(model.notice).toBeNull();
  });

  it('is nothing where nothing has', async () => {
    asked.mockImplementation(async () => answer(200, happened('d', null)));
    const model = make();
    new Notices(model, trans);
    await model.refresh();
    model.dismiss();
    expect(model.notice).toBeNull();
    expect(Notification.emit).not.toHaveBeenCalled();
  });
});
