import { render } from 'preact';
import $BV from '../src/module.ts';
import { App } from './app.tsx';
import { Store } from './logic/store.ts';
import { applyTheme, storedTheme } from './logic/theme.ts';
import './style.css';

applyTheme(storedTheme());
const root = document.getElementById('app')!;
root.textContent = '';
render(<App store={new Store($BV)} />, root);
