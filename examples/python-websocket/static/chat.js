const name = new URLSearchParams(location.search).get("name") || `guest ${Math.floor(Math.random() * 900 + 100)}`;
const state = document.getElementById("state");
const messages = document.getElementById("messages");
const text = document.getElementById("text");
let socket;

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/ws?name=${encodeURIComponent(name)}`);
  socket.onopen = () => { messages.replaceChildren(); state.textContent = `connected as ${name}`; };
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    const item = document.createElement("li");
    const author = document.createElement("b");
    author.textContent = message.from;
    item.append(author, ` ${message.text}`);
    messages.append(item);
  };
  socket.onclose = () => { state.textContent = "reconnecting"; setTimeout(connect, 1000); };
}

document.getElementById("say").addEventListener("submit", (event) => {
  event.preventDefault();
  if (text.value) socket.send(text.value);
  text.value = "";
});
connect();
