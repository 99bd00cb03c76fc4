// Keeps the reader at the end of the conversation while it grows, and leaves alone whoever has scrolled away.
import { $ } from './dom.js';

const NEAR = 80;
const log = $('log');
let following = true;

const near = () => log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;

export function toEnd() {
  following = true;
  log.scrollTop = log.scrollHeight;
  $('latest').hidden = true;
}

// After something was added.
export function grown() {
  if (following) log.scrollTop = log.scrollHeight;
  $('latest').hidden = following || near();
}

export function start() {
  // Only a person's own scrolling counts: away from the end lets go of it, back to the end takes it up again.
  log.addEventListener('scroll', () => {
    following = near();
    $('latest').hidden = following;
  });
  $('latest').addEventListener('click', () => { toEnd(); log.focus({ preventScroll: true }); });
  new ResizeObserver(() => { if (following) log.scrollTop = log.scrollHeight; }).observe(log);
}
