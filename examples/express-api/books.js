let nextId = 4;
const shelf = [
  { id: 1, title: "The Left Hand of Darkness", author: "Ursula K. Le Guin", year: 1969 },
  { id: 2, title: "Invisible Cities", author: "Italo Calvino", year: 1972 },
  { id: 3, title: "The Periodic Table", author: "Primo Levi", year: 1975 },
];

exports.all = () => shelf;

exports.search = (text) => {
  if (!text) return shelf;
  const wanted = String(text).toLowerCase();
  return shelf.filter((book) => `${book.title} ${book.author}`.toLowerCase().includes(wanted));
};

exports.find = (id) => shelf.find((book) => book.id === id);

exports.add = ({ title, author, year }) => {
  const book = { id: nextId++, title, author, year: Number(year) || null };
  shelf.push(book);
  return book;
};

exports.remove = (id) => {
  const at = shelf.findIndex((book) => book.id === id);
  if (at === -1) return false;
  shelf.splice(at, 1);
  return true;
};
