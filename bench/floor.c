/* The floor of bench/floor.py: what it costs to get a file over HTTP/1.1 at least.
 *
 *     floor ADDRESS PORT PATH SIZE OUTPUT CONNECTIONS PROCESSES direct|buffered
 *
 * Each connection gets one range of the file, receives into a buffer of 1 MiB and
 * writes it at its place. Nothing is checked but the first status line, nothing is
 * retried, nothing is resumable. Exit code 0, or 1 with a reason.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, ALIGN = 4096, HEAD = 4096, MOST = 256 };

struct lane {
    int fd;
    char *block;
    size_t filled;
    off_t at, end; /* of the next write, and of the range */
};

static struct sockaddr_in server;
static const char *path, *output;

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Ask for a range, read the head, and keep what came of the body with it. */
static void begin(struct lane *lane) {
    char text[HEAD + 1];
    size_t got = 0;
    char *body = NULL;
    lane->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (lane->fd < 0 || connect(lane->fd, (void *)&server, sizeof server)) die("connect");
    int length = snprintf(text, sizeof text,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                          "Range: bytes=%lld-%lld\r\nConnection: close\r\n\r\n",
                          path, (long long)lane->at, (long long)lane->end - 1);
    if (write(lane->fd, text, length) != length) die("request");
    while (body == NULL) {
        ssize_t count = got < HEAD ? read(lane->fd, text + got, HEAD - got) : 0;
        if (count <= 0) die("head");
        text[got += count] = 0;
        body = strstr(text, "\r\n\r\n");
    }
    if (strncmp(text, "HTTP/1.1 206", 12)) {
        fprintf(stderr, "no 206: %.60s\n", text);
        exit(1);
    }
    body += 4;
    lane->filled = text + got - body;
    if (posix_memalign((void **)&lane->block, ALIGN, BLOCK)) die("memory");
    memcpy(lane->block, body, lane->filled);
}

/* Write what the block holds; only the file's last one is not a whole number of pages. */
static void flush(struct lane *lane, int file) {
    if (lane->filled % ALIGN) {
        int flags = fcntl(file, F_GETFL);
        fcntl(file, F_SETFL, flags & ~O_DIRECT);
    }
    if (pwrite(file, lane->block, lane->filled, lane->at) != (ssize_t)lane->filled)
        die("write");
    lane->at += lane->filled;
    lane->filled = 0;
}

/* Receive once; give 0 when the range is complete. */
static int receive(struct lane *lane, int file) {
    size_t left = lane->end - lane->at - lane->filled;
    size_t room = BLOCK - lane->filled;
    ssize_t count = 0;
    if (left > 0) {
        count = recv(lane->fd, lane->block + lane->filled, left < room ? left : room, 0);
        if (count <= 0) die("body");
    }
    lane->filled += count;
    left -= count;
    if (lane->filled == BLOCK || left == 0) flush(lane, file);
    if (left > 0) return 1;
    close(lane->fd);
    return 0;
}

static void work(struct lane *lanes, int count, int flags) {
    struct pollfd polled[MOST];
    int file = open(output, O_WRONLY | flags), open_lanes = count;
    if (file < 0) die(output);
    for (int i = 0; i < count; i++) {
        begin(&lanes[i]);
        polled[i] = (struct pollfd){.fd = lanes[i].fd, .events = POLLIN};
    }
    while (open_lanes) {
        if (poll(polled, count, -1) < 0) die("poll");
        for (int i = 0; i < count; i++)
            if (polled[i].revents && !receive(&lanes[i], file)) {
                polled[i].fd = -1;
                open_lanes--;
            }
    }
    close(file);
}

int main(int argc, char **argv) {
    if (argc != 9) {
        fprintf(stderr, "usage: see floor.c\n");
        return 1;
    }
    path = argv[3];
    output = argv[5];
    off_t size = atoll(argv[4]);
    int count = atoi(argv[6]), processes = atoi(argv[7]), status, failed = 0;
    int flags = strcmp(argv[8], "direct") ? 0 : O_DIRECT;
    struct lane lanes[MOST] = {0};
    if (size < 1 || processes < 1 || count < processes || count > MOST) return 1;
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(argv[2]));
    inet_pton(AF_INET, argv[1], &server.sin_addr);
    int file = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || ftruncate(file, size)) die(output);
    close(file);
    off_t share = (size / count + BLOCK - 1) / BLOCK * BLOCK;
    int used = 0;
    for (off_t at = 0; at < size; at += share, used++) {
        lanes[used].at = at;
        lanes[used].end = at + share < size ? at + share : size;
    }
    for (int i = 0; i < processes; i++)
        if (fork() == 0) {
            int first = used * i / processes, next = used * (i + 1) / processes;
            work(lanes + first, next - first, flags);
            return 0;
        }
    while (wait(&status) > 0) failed |= status;
    return failed ? 1 : 0;
}
