import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { told } from './words';

/** An answer that is not what was asked for; the message is a sentence. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string
  ) {
    super(message);
    this.name = 'Refused';
  }
}

/** A call of this server's extension. */
export async function request<T>(
  settings: ServerConnection.ISettings,
  method: string,
  path: string,
  body?: unknown
): Promise<T> {
  const init: RequestInit = { method, cache: 'no-store' };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
  }
  const url = URLExt.join(settings.baseUrl, 'gpudev', path);
  const response = await ServerConnection.makeRequest(url, init, settings);
  const text = await response.text();
  if (!response.ok) {
    throw new Refused(response.status, sentence(text));
  }
  return (text ? JSON.parse(text) : undefined) as T;
}

function sentence(text: string): string {
  try {
    const answer = JSON.parse(text) as { error?: { message?: string } };
    return told(answer.error?.message ?? '', new Date());
  } catch {
    return ''; // a page of something in between
  }
}
