/* A Modbus server made of libmodbus: serves register images from a file, over TCP or a serial line.
 *
 *   register_server tcp HOST IMAGE          prints the port that it listens on
 *   register_server rtu DEVICE BAUD IMAGE   prints "ready"
 *
 * A line of the image is UNIT TABLE ADDRESS WORD WORD …, all but UNIT and TABLE hexadecimal, TABLE being
 * "holding" or "input". What no line names is answered with the exception "illegal data address".
 */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ADDRESSES = 65536, UNITS = 248 };

typedef struct {
    uint16_t words[ADDRESSES];
    unsigned char known[ADDRESSES];
} table;

static table *holding[UNITS], *input[UNITS];

static void load(const char *path) {
    FILE *file = fopen(path, "r");
    char line[65536];
    if (!file) { perror(path); exit(2); }
    while (fgets(line, sizeof line, file)) {
        char *rest = line;
        long unit = strtol(strsep(&rest, " "), NULL, 10);
        table **at = strcmp(strsep(&rest, " "), "holding") ? &input[unit] : &holding[unit];
        long address = strtol(strsep(&rest, " "), NULL, 16);
        if (!*at) *at = calloc(1, sizeof(table));
        for (char *word; (word = strsep(&rest, " \n")) && *word; address++) {
            (*at)->words[address] = strtol(word, NULL, 16);
            (*at)->known[address] = 1;
        }
    }
    fclose(file);
}

static int answer(modbus_t *context, const uint8_t *query, int length, int unit) {
    int header = modbus_get_header_length(context), function = query[header];
    int address = query[header + 1] << 8 | query[header + 2], count = query[header + 3] << 8 | query[header + 4];
    if (unit >= UNITS || (!holding[unit] && !input[unit])) return 0; /* nobody of that number: silence */
    table *wanted = function == 4 ? input[unit] : holding[unit];
    if (function == 6) count = 1;
    for (int at = address; at < address + count; at++)
        if (!wanted || at >= ADDRESSES || !wanted->known[at])
            return modbus_reply_exception(context, query, MODBUS_EXCEPTION_ILLEGAL_DATA_ADDRESS);
    modbus_mapping_t mapping = {0};
    mapping.nb_registers = mapping.nb_input_registers = ADDRESSES;
    mapping.tab_registers = mapping.tab_input_registers = wanted->words;
    return modbus_reply(context, query, length, &mapping);
}

static void serve_tcp(const char *host) {
    modbus_t *context = modbus_new_tcp(host, 0);
    int listener = modbus_tcp_listen(context, 8);
    struct sockaddr_in bound;
    socklen_t size = sizeof bound;
    if (listener < 0 || getsockname(listener, (struct sockaddr *)&bound, &size)) { perror("listen"); exit(1); }
    printf("%d\n", ntohs(bound.sin_port));
    fflush(stdout);
    fd_set open_ones, ready;
    FD_ZERO(&open_ones);
    FD_SET(listener, &open_ones);
    for (int highest = listener;;) {
        ready = open_ones;
        if (select(highest + 1, &ready, NULL, NULL, NULL) < 0) exit(1);
        for (int one = 0; one <= highest; one++) {
            if (!FD_ISSET(one, &ready)) continue;
            if (one == listener) {
                int joined = modbus_tcp_accept(context, &listener);
                FD_SET(joined, &open_ones);
                if (joined > highest) highest = joined;
                continue;
            }
            uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
            modbus_set_socket(context, one);
            int length = modbus_receive(context, query);
            if (length > 0) answer(context, query, length, query[modbus_get_header_length(context) - 1]);
            else { close(one); FD_CLR(one, &open_ones); }
        }
    }
}

/* libmodbus' RTU server is one unit: the image's first. */
static void serve_rtu(const char *device, int baud) {
    modbus_t *context = modbus_new_rtu(device, baud, 'N', 8, 1);
    int unit = 0;
    while (unit < UNITS && !holding[unit] && !input[unit]) unit++;
    if (!context || modbus_set_slave(context, unit) || modbus_connect(context)) { perror(device); exit(1); }
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        uint8_t query[MODBUS_RTU_MAX_ADU_LENGTH];
        int length = modbus_receive(context, query);
        if (length > 0) answer(context, query, length, query[0]);
        else if (length < 0 && errno == EIO) exit(0); /* the line is gone */
    }
}

int main(int count, char **words) {
    if (count == 4 && !strcmp(words[1], "tcp")) { load(words[3]); serve_tcp(words[2]); }
    if (count == 5 && !strcmp(words[1], "rtu")) { load(words[4]); serve_rtu(words[2], atoi(words[3])); }
    fprintf(stderr, "usage: register_server tcp HOST IMAGE | rtu DEVICE BAUD IMAGE\n");
    return 2;
}
