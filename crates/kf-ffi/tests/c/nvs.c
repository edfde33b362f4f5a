/* A partition of NVS under the storage key: brought there, written, read and moved to the next key, with the power cut in the middle of
 * every operation of either memory. Arguments: the partition as another tool made it, its keys as hexadecimal text or "-" for one in clear,
 * and where to write what becomes of it. */
#include "ram_board.h"

#define PAGES 4u
#define PAGE 4096u

static uint8_t cells[PAGES * PAGE];
static memory partition_memory = {cells, 4, PAGE, PAGES};
static const kf_nvs partition = {&partition_memory, memory_read, memory_program, memory_erase, 4, PAGES};
static uint8_t own_keys[64];
static const uint8_t *from; /* what the partition lies under at first */
static const uint8_t request[16] = {0x52};

static kf_device device;
static kf_protected keys;

/* ---- What is in it ------------------------------------------------------------------------------------------------ */

typedef struct value {
  const char *space, *key;
  uint8_t type;
  const uint8_t *octets;
  size_t length;
} value;

#define TEXT(text) KF_NVS_STR, (const uint8_t *)(text), sizeof(text) - 1
#define NOTHING 0, NULL, 0
static const uint8_t offset[4] = {0xf9, 0xff, 0xff, 0xff}, offset_after[4] = {8}, serial[8] = {0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 1};
static const uint8_t channel[1] = {11};
static uint8_t table[5000], blob[KF_NVS_VALUE_OCTETS], long_text[3600];
enum { SSID, PASSWORD, OFFSET, SERIAL, TABLE, CHANNEL, SITE, VALUES };
static value values[VALUES] = {
    {"wifi", "ssid", TEXT("plant floor")},          {"wifi", "password", TEXT("correct horse battery staple")},
    {"calib", "offset", KF_NVS_I32, offset, 4},     {"calib", "serial", KF_NVS_U64, serial, 8},
    {"calib", "table", KF_NVS_BLOB, table, 5000},   {"wifi", "channel", KF_NVS_U8, channel, 1},
    {"site", "name", NOTHING},
};

/* Whether a value is what it should be: not there where there should be nothing. */
static int is_there(const value *of) {
  static uint8_t octets[sizeof table];
  size_t length = 0;
  kf_status status = kf_nvs_get(&keys, &device, &partition, from, of->space, of->key, octets, sizeof octets, &length);
  if (of->octets == NULL) return status == KF_MISSING;
  return status == KF_OK && length == of->length && memcmp(octets, of->octets, length) == 0;
}

/* ---- Acts, each done by a program that has just started ----------------------------------------------------------- */

static kf_status begin(void) {
  kf_status status = kf_start(&device, &board_hooks, &board_facts);
  if (status != KF_OK) return status;
  status = kf_protected_open(&keys, &device);
  if (status != KF_OK) kf_stop(&device);
  return status;
}

static void end(void) {
  kf_protected_end(&keys);
  kf_stop(&device);
}

static kf_status adopt(void) {
  uint8_t what;
  kf_status status;
  do {
    status = kf_nvs_adopt(&keys, &device, &partition, from, &what);
  } while (status == KF_OK && what == KF_MOVED);
  return status == KF_OCCUPIED ? KF_OK : status;
}

static kf_status migrate(void) {
  uint8_t what = KF_MOVED;
  kf_status status = kf_protected_begin(&keys, &device, request);
  while (status == KF_OK && what == KF_MOVED) status = kf_nvs_step(&keys, &device, &partition, &what);
  return status;
}

/* The value that is put or, without octets, removed. */
static value wanted;

static kf_status put(void) {
  return kf_nvs_put(&keys, &device, &partition, wanted.space, wanted.key, wanted.type, wanted.octets, wanted.length);
}

static kf_status remove_it(void) {
  kf_status status = kf_nvs_remove(&keys, &device, &partition, wanted.space, wanted.key);
  return status == KF_MISSING ? KF_OK : status;
}

static kf_status attempt(kf_status (*act)(void)) {
  kf_status status = begin();
  if (status != KF_OK) return status;
  status = act();
  end();
  return status;
}

/* ---- Power cuts --------------------------------------------------------------------------------------------------- */

/* Every value is there; the one that is being written is the old one or the new one, and the latter when `is_done`. */
static int check(const value *after, int is_done) {
  size_t i;
  SAYS(begin(), KF_OK);
  for (i = 0; i < VALUES; i++) {
    int is_it = after != NULL && strcmp(values[i].space, after->space) == 0 && strcmp(values[i].key, after->key) == 0;
    if (is_it) CHECK(is_there(after) || (!is_done && is_there(&values[i])));
    if (!is_it) CHECK(is_there(&values[i]));
  }
  end();
  return 0;
}

/* Does it with the power cut in the middle of each operation, has it finish, and leaves it done. */
static int cut_everywhere(const char *what, kf_status (*act)(void), const value *after) {
  static uint8_t board_before[sizeof board_cells], before[sizeof cells];
  long first = operations, count, at;
  memcpy(board_before, board_cells, sizeof board_before);
  memcpy(before, cells, sizeof before);
  SAYS(attempt(act), KF_OK);
  count = operations - first;
  CHECK(count > 0);
  CHECK(check(after, 1) == 0);
  for (at = 0; at < count; at++) {
    memcpy(board_cells, board_before, sizeof board_before);
    memcpy(cells, before, sizeof before);
    cut_after(at);
    CHECK(attempt(act) != KF_OK && !has_power);
    power_on();
    CHECK(check(after, 0) == 0);
    SAYS(attempt(act), KF_OK);
    CHECK(check(after, 1) == 0);
  }
  printf("%s %ld\n", what, count);
  return 0;
}

static int write_everywhere(const char *what, int which, uint8_t type, const uint8_t *octets, size_t length) {
  wanted = values[which];
  wanted.type = type;
  wanted.octets = octets;
  wanted.length = length;
  CHECK(cut_everywhere(what, octets == NULL ? remove_it : put, &wanted) == 0);
  values[which] = wanted;
  return 0;
}

/* ---- What is refused ---------------------------------------------------------------------------------------------- */

static int refuse_before(void) {
  kf_nvs wrong = partition;
  uint8_t what = 9, weak[64] = {0};
  SAYS(begin(), KF_OK);
  SAYS(kf_nvs_put(&keys, &device, &partition, "a", "b", KF_NVS_U8, channel, 1), KF_MISSING); /* not adopted */
  SAYS(kf_nvs_settle(&keys, &device, &partition), KF_MISSING);
  SAYS(kf_nvs_adopt(&keys, &device, NULL, from, &what), KF_NULL);
  SAYS(kf_nvs_adopt(&keys, &device, &partition, from, NULL), KF_NULL);
  SAYS(kf_nvs_adopt(&keys, &device, &partition, weak, &what), KF_ARGUMENT);
  wrong.erase = NULL;
  SAYS(kf_nvs_format(&keys, &device, &wrong), KF_BOARD);
  wrong = partition;
  wrong.pages = 1;
  SAYS(kf_nvs_format(&keys, &device, &wrong), KF_BOARD);
  wrong.pages = PAGES;
  wrong.word = 8;
  SAYS(kf_nvs_format(&keys, &device, &wrong), KF_BOARD);
  SAYS(kf_nvs_keys(&keys, NULL), KF_NULL);
  end();
  SAYS(kf_nvs_keys(&keys, weak), KF_STATE);
  return 0;
}

static int refuse_after(void) {
  static uint8_t board_before[sizeof board_cells];
  uint8_t what, octets[sizeof serial];
  size_t length = 0;
  SAYS(begin(), KF_OK);
  SAYS(kf_nvs_adopt(&keys, &device, &partition, from, &what), KF_OCCUPIED);
  SAYS(kf_nvs_put(&keys, &device, &partition, "", "b", KF_NVS_U8, channel, 1), KF_ARGUMENT);
  SAYS(kf_nvs_put(&keys, &device, &partition, "a", "sixteen octets..", KF_NVS_U8, channel, 1), KF_ARGUMENT);
  SAYS(kf_nvs_put(&keys, &device, &partition, "a", "b", KF_NVS_U16, channel, 1), KF_LENGTH);
  SAYS(kf_nvs_put(&keys, &device, &partition, "a", "b", 0x48, channel, 1), KF_ARGUMENT);
  SAYS(kf_nvs_put(&keys, &device, &partition, "a", "b", KF_NVS_STR, serial, 1), KF_ARGUMENT); /* no UTF-8 */
  SAYS(kf_nvs_put(&keys, &device, &partition, "a", "b", KF_NVS_STR, offset_after, 4), KF_LENGTH); /* a NUL in it */
  SAYS(kf_nvs_put(&keys, &device, &partition, "a", "b", KF_NVS_BLOB, table, KF_NVS_VALUE_OCTETS + 1), KF_LENGTH);
  SAYS(kf_nvs_get(&keys, &device, &partition, NULL, "a", "b", octets, sizeof octets, &length), KF_MISSING); /* no such space */
  SAYS(kf_nvs_get(&keys, &device, &partition, NULL, "calib", "serial", octets, 7, &length), KF_BUFFER);
  CHECK(length == 8);
  SAYS(kf_nvs_remove(&keys, &device, &partition, "calib", "none"), KF_MISSING);
  end();
  memcpy(board_before, board_cells, sizeof board_before);
  SAYS(begin(), KF_OK);
  /* While a key takes over nobody writes, and who forgets the partition is stopped. */
  SAYS(kf_protected_begin(&keys, &device, request), KF_OK);
  SAYS(kf_nvs_put(&keys, &device, &partition, "calib", "serial", KF_NVS_U64, serial, 8), KF_UNDER_WAY);
  SAYS(kf_nvs_settle(&keys, &device, &partition), KF_UNDER_WAY);
  SAYS(kf_protected_step(&keys, &device, &what), KF_NVS_FIRST);
  end();
  memcpy(board_cells, board_before, sizeof board_before);
  return 0;
}

/* What is there already costs nothing, and values go in until there is no room, which changes none of them. */
static int fill_up(void) {
  char key[8] = "k0";
  long before;
  int put_so_far = 0;
  SAYS(begin(), KF_OK);
  before = operations;
  SAYS(kf_nvs_put(&keys, &device, &partition, "calib", "offset", KF_NVS_I32, values[OFFSET].octets, 4), KF_OK);
  SAYS(kf_nvs_put(&keys, &device, &partition, "wifi", "ssid", KF_NVS_STR, values[SSID].octets, values[SSID].length), KF_OK);
  CHECK(operations == before);
  while (key[1] < '9' && kf_nvs_put(&keys, &device, &partition, "calib", key, KF_NVS_BLOB, table, 1500) == KF_OK) {
    key[1]++;
    put_so_far++;
  }
  CHECK(put_so_far > 0 && put_so_far < 9);
  before = operations;
  SAYS(kf_nvs_put(&keys, &device, &partition, "calib", key, KF_NVS_BLOB, table, 1500), KF_FULL);
  CHECK(operations == before);
  for (key[1] = '0'; put_so_far-- > 0; key[1]++) SAYS(kf_nvs_remove(&keys, &device, &partition, "calib", key), KF_OK);
  end();
  return check(NULL, 1);
}

/* ---- --------------------------------------------------------------------------------------------------------------- */

static int read_file(const char *name) {
  FILE *file = fopen(name, "rb");
  CHECK(file != NULL && fread(cells, 1, sizeof cells, file) == sizeof cells);
  fclose(file);
  return 0;
}

static int write_file(const char *name) {
  FILE *file = fopen(name, "wb");
  CHECK(file != NULL && fwrite(cells, 1, sizeof cells, file) == sizeof cells && fclose(file) == 0);
  return 0;
}

int main(int count, char **arguments) {
  uint8_t made[64], what = 0;
  size_t i;
  CHECK(count == 4 && read_file(arguments[1]) == 0);
  if (strcmp(arguments[2], "-") != 0) {
    CHECK(unhex(arguments[2], own_keys) == sizeof own_keys);
    from = own_keys;
  }
  for (i = 0; i < sizeof table; i++) table[i] = (uint8_t)(i % 253);
  for (i = 0; i < sizeof blob; i++) blob[i] = (uint8_t)(i % 241);
  memset(long_text, 'x', sizeof long_text);
  memset(board_cells, 0xff, sizeof board_cells);
  SAYS(kf_format(&board_hooks, &board_facts), KF_OK);
  CHECK(refuse_before() == 0);
  CHECK(cut_everywhere("adopted", adopt, NULL) == 0);
  CHECK(write_everywhere("number", OFFSET, KF_NVS_I32, offset_after, 4) == 0);
  CHECK(write_everywhere("new namespace", SITE, TEXT("Lyon")) == 0);
  CHECK(write_everywhere("text that moves", PASSWORD, KF_NVS_STR, long_text, sizeof long_text) == 0);
  CHECK(write_everywhere("blob of several pages", TABLE, KF_NVS_BLOB, blob, 700) == 0);
  CHECK(write_everywhere("blob", TABLE, KF_NVS_BLOB, blob, 40) == 0);
  CHECK(write_everywhere("removed", SERIAL, NOTHING) == 0);
  values[SERIAL].octets = NULL;
  CHECK(fill_up() == 0);
  CHECK(write_everywhere("put again", SERIAL, KF_NVS_U64, serial, 8) == 0);
  CHECK(refuse_after() == 0);
  CHECK(cut_everywhere("migrated", migrate, NULL) == 0);
  SAYS(begin(), KF_OK);
  SAYS(kf_nvs_step(&keys, &device, &partition, &what), KF_OK);
  CHECK(what == KF_IDLE);
  SAYS(kf_nvs_keys(&keys, made), KF_OK);
  end();
  print_hex("keys", made, sizeof made);
  return write_file(arguments[3]);
}
